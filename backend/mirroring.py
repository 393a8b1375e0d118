"""The web process's part in the exchange of models: it looks for a new serving version about once a second."""

import logging
import threading

from backend.services import Services
from carcond.errors import CarcondError
from carcond.model_mirror import ModelMirror

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 0.8


class ModelFollower(threading.Thread):
    """Keeps the serving versions of all projects like those in the object store, until it is stopped."""

    def __init__(self, services: Services) -> None:
        super().__init__(name="models", daemon=True)
        self._services = services
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look again and again; what is here goes on serving while the object store is away."""
        mirror: ModelMirror | None = None
        told = ""
        while not self._stopped.is_set():
            try:
                mirror = mirror or self._open()
                for project_id in self._services.store.project_ids():
                    if mirror.pull_serving(project_id):
                        mirror.pull_encoders()
                told = ""
            except CarcondError as error:
                # Told once, not every second.
                if str(error) != told:
                    told = str(error)
                    logger.error("new versions do not arrive: %s", error)
            self._stopped.wait(_EVERY_SECONDS)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()

    def _open(self) -> ModelMirror:
        settings = self._services.settings
        mirror = ModelMirror(settings.models_dir, settings.models_url)
        mirror.pull_encoders()
        return mirror
