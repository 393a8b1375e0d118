"""What a process needs at hand: settings, store, registries, encoders, the way to Label Studio."""

from functools import cache, cached_property, partial
from threading import Lock

from backend.labelstudio import LabelStudioApi
from backend.photos import PhotoFetcher
from carcond.encoder import Encoder, encoder_directory, find_encoder
from carcond.model_mirror import ModelMirror
from carcond.promotions import Promotion
from carcond.registry import Registry
from carcond.settings import Settings, get_settings
from carcond.store import Store


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
        """The way to Label Studio."""
        return LabelStudioApi.from_settings(self.settings)

    @cached_property
    def photos(self) -> PhotoFetcher:
        """The way to photos."""
        return PhotoFetcher(self.settings)

    @cached_property
    def mirror(self) -> ModelMirror | None:
        """The way to the object store of models, None where all processes share a disk. Not for several threads.

        Raises:
            ModelMirrorError: it cannot be opened.
        """
        return ModelMirror(self.settings.models_dir, self.settings.models_url) if self.settings.models_url else None

    def pull_models(self, project_id: int) -> None:
        """Fetch the encoders and a project's versions that other hosts have made.

        Raises:
            ModelMirrorError: the object store cannot be read.
        """
        if self.mirror:
            self.mirror.pull_encoders()
            self.mirror.pull_versions(project_id)

    def pull_serving(self, project_id: int) -> None:
        """Fetch the version of a project that serves by now; one small read while it is the same.

        Raises:
            ModelMirrorError: the object store cannot be read.
        """
        if self.mirror:
            self.mirror.pull_serving(project_id)

    def push_versions(self, project_id: int) -> None:
        """Hand a project's versions to other hosts.

        Raises:
            ModelMirrorError: the object store cannot be written.
        """
        if self.mirror:
            self.mirror.push_versions(project_id)

    def registry(self, project_id: int) -> Registry:
        """The model versions of a project."""
        hand_over = partial(self._hand_over, project_id) if self.settings.models_url else None
        return self._registries.setdefault(project_id, Registry(self.settings.models_dir, project_id, hand_over))

    def _hand_over(self, project_id: int, promotion: Promotion) -> None:
        # Not the mirror's method itself: registries are opened while the store is away, too.
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
        # Else all that ask at once after a start would load it, each into memory of its own.
        with self._loading:
            if encoder_id not in self._encoders:
                directory = encoder_directory(self.settings.models_dir, encoder_id)
                self._encoders[encoder_id] = Encoder.load(directory, self.settings.encoder_threads)
            return self._encoders[encoder_id]


@cache
def get_services() -> Services:
    """The services of this process."""
    return Services(get_settings())
