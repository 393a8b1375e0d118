"""The web process's part in the exchange of models: it polls for a new serving version about once a second."""

import logging
import threading

from backend.services import Services
from carcond.errors import CarcondError
from carcond.registry.object_store import ModelMirror

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 0.8


class ModelFollower(threading.Thread):
    """Keeps the serving versions of all projects in sync with the object store, until it is stopped."""

    def __init__(self, services: Services) -> None:
        super().__init__(name="models", daemon=True)
        self._services = services
        self._stopped = threading.Event()

    def run(self) -> None:
        """Poll; local versions go on serving while the object store is unreachable."""
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
                # Logged once, not every second.
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
