"""Gunicorn's settings: `gunicorn -c python:backend.gunicorn_conf "backend.app:create_app()"`."""

import logging
import os

from gunicorn.errors import AppImportError  # type: ignore[import-untyped]  # gunicorn publishes no types

bind = os.environ.get("CARCOND_BIND", "127.0.0.1:9090")
# One process, so that encoder and heads are in memory once; ONNX Runtime uses all cores by itself,
# and the threads only wait for Label Studio, the database, or their turn at the network:
# `backend.rest.routes.SEATS` of them are for applications, the others for Label Studio.
workers = 1
worker_class = "gthread"
threads = 32
# Label Studio itself waits for a prediction at most 100 s.
timeout = 120
graceful_timeout = 10
# Its default place is shared by all gunicorns of a user.
control_socket_disable = True


def post_worker_init(_worker: object) -> None:
    """Open the store before the first request, which would have to wait while an older store is upgraded.

    Raises:
        AppImportError: a newer carcond has used the store; gunicorn shows the text and ends.
    """
    # Imported here: the process that only watches over the workers has no use for it.
    from backend.services import get_services  # noqa: PLC0415
    from carcond.errors import NewerStoreError, StoreError  # noqa: PLC0415

    try:
        get_services().store  # noqa: B018
    except NewerStoreError as error:
        raise AppImportError(str(error)) from error
    except StoreError as error:
        # It may be back in a moment. Until then versions that are on disk go on serving.
        logging.getLogger(__name__).error("%s", error)
