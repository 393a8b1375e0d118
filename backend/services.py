"""Services of a process: settings, store, registries, encoders, and the client of Label Studio."""

import shutil
from collections.abc import Collection
from functools import cache, cached_property, partial
from pathlib import Path
from threading import Lock

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.photo_fetcher import PhotoFetcher
from backend.photo_pipeline import PhotoPipeline
from backend.pool.cache import PoolCache
from carcond.model.encoder import Encoder, encoder_directory, find_encoder
from carcond.registry.object_store import ModelMirror
from carcond.registry.promotions import Promotion
from carcond.registry.pruning import prune
from carcond.registry.registry import Registry
from carcond.settings import Settings, get_settings
from carcond.store.store import Store


class Services:
    """Made once a process, each part on first use: a web process that only reads never opens the rest."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._registries: dict[int, Registry] = {}
        self._encoders: dict[str, Encoder] = {}
        self._loading = Lock()

    @cached_property
    def store(self) -> Store:
        """The database."""
        return Store(self.settings.database_url)

    @cached_property
    def api(self) -> LabelStudioApi:
        """Label Studio's client."""
        return LabelStudioApi.from_settings(self.settings)

    @cached_property
    def photos(self) -> PhotoFetcher:
        """Fetcher of photos."""
        return PhotoFetcher(self.settings)

    @cached_property
    def photo_pipeline(self) -> PhotoPipeline:
        """Pipeline from addresses of photos to embeddings."""
        return PhotoPipeline(self.photos, self.settings.max_photo_pixels)

    @cached_property
    def mirror(self) -> ModelMirror | None:
        """Mirror of the object store of models, None where all processes share a disk. Not thread-safe.

        Raises:
            ModelMirrorError: it cannot be opened.
        """
        return ModelMirror(self.settings.models_dir, self.settings.models_url) if self.settings.models_url else None

    def pull_models(self, project_id: int) -> None:
        """Fetch the encoders and a project's versions made on other hosts.

        Raises:
            ModelMirrorError: the object store cannot be read.
        """
        if self.mirror:
            self.mirror.pull_encoders()
            self.mirror.pull_versions(project_id)

    def pull_serving(self, project_id: int) -> None:
        """Fetch the current serving version of a project, and pins; a few small reads while nothing has changed.

        Raises:
            ModelMirrorError: the object store cannot be read.
        """
        if self.mirror:
            self.mirror.pull_serving(project_id)

    def push_versions(self, project_id: int) -> None:
        """Upload a project's versions for other hosts.

        Raises:
            ModelMirrorError: the object store cannot be written.
        """
        if self.mirror:
            self.mirror.push_versions(project_id)

    def prune_versions(self, project_id: int) -> None:
        """Prune a project's versions here and on other hosts, see `carcond.registry.pruning`.

        Raises:
            RegistryError: the disk refused.
            ModelMirrorError: the object store refused.
        """
        prune(self.registry(project_id))
        if self.mirror:
            self.mirror.prune(project_id)

    def pool(self, project_id: int, encoder_id: str) -> PoolCache:
        """A project's photos with their embeddings by an encoder."""
        return PoolCache(self.store, project_id, encoder_id, self._pools_dir(project_id) / encoder_id)

    def remove_pools(self, project_id: int, kept: Collection[str]) -> None:
        """Remove the files of a project's photos by encoders that are not in use.

        Args:
            project_id: of the photos.
            kept: ids of the encoders in use.
        """
        directory = self._pools_dir(project_id)
        for folder in directory.iterdir() if directory.is_dir() else ():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _pools_dir(self, project_id: int) -> Path:
        return self.settings.models_dir / "cache" / "pools" / str(project_id)

    def registry(self, project_id: int) -> Registry:
        """The model versions of a project."""
        if project_id in self._registries:
            return self._registries[project_id]
        on_promote = partial(self._on_promote, project_id) if self.settings.models_url else None
        registry = Registry(self.settings.models_dir, project_id, on_promote)
        # Requests may name any number of projects that do not exist: nothing is kept of those.
        return self._registries.setdefault(project_id, registry) if registry.root.is_dir() else registry

    def _on_promote(self, project_id: int, promotion: Promotion) -> None:
        # Not the mirror's method itself: registries are opened while the object store is unreachable, too.
        if self.mirror:
            self.mirror.promote(project_id, promotion)

    def encoder_id(self) -> str:
        """The encoder that new versions are built on.

        Raises:
            EncoderError: none has been made yet.
        """
        return find_encoder(self.settings.models_dir).name

    def encoder(self, encoder_id: str) -> Encoder:
        """An encoder ready to run, loaded once.

        Raises:
            EncoderError: it is missing or broken.
        """
        # Else concurrent requests after a start would each load it, into memory of their own.
        with self._loading:
            if encoder_id not in self._encoders:
                directory = encoder_directory(self.settings.models_dir, encoder_id)
                self._encoders[encoder_id] = Encoder.load(directory, self.settings.encoder_threads)
            return self._encoders[encoder_id]


@cache
def get_services() -> Services:
    """The services of this process."""
    return Services(get_settings())
