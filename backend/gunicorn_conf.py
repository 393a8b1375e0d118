"""Gunicorn's settings: `gunicorn -c python:backend.gunicorn_conf "backend.app:create_app()"`."""

import logging
import os
from ipaddress import ip_address

from gunicorn.errors import AppImportError  # type: ignore[import-untyped]  # gunicorn publishes no types

from carcond.errors import NewerStoreError, StoreError
from carcond.files import restrict_umask

restrict_umask()
# The first address is the one for Label Studio.
bind = [address.strip() for address in os.environ.get("CARCOND_BIND", "127.0.0.1:9090").split(",")]
# One process, so that encoder and heads are in memory once; ONNX Runtime uses all cores by itself,
# and the threads only wait for Label Studio, the database, or the encoder:
# `backend.web.api.routes.SLOTS` of them are for applications, the others for Label Studio.
workers = 1
worker_class = "backend.buffering_worker.BufferingWorker"
threads = 32
# Fewer than the usual limit of 1024 open files, of which databases and photos need some.
worker_connections = 500
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

    if not all(map(_is_of_this_machine, bind)) and not get_services().settings.basic_auth_user:
        logging.getLogger(__name__).warning(
            "%s can be reached from other machines without a password: set CARCOND_BASIC_AUTH_USER and "
            "CARCOND_BASIC_AUTH_PASSWORD, or listen on 127.0.0.1 (CARCOND_BIND)",
            ", ".join(bind),
        )
    try:
        get_services().store  # noqa: B018
    except NewerStoreError as error:
        raise AppImportError(str(error)) from error
    except StoreError as error:
        # It may be back in a moment. Until then versions on disk go on serving.
        logging.getLogger(__name__).error("%s", error)


def _is_of_this_machine(address: str) -> bool:
    """True for a socket file, or a host and port that other machines cannot reach."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address.startswith("unix:") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
