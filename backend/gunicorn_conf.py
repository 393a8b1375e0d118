"""Gunicorn's settings: `gunicorn -c python:backend.gunicorn_conf "backend.app:create_app()"`."""

import os

bind = os.environ.get("CARCOND_BIND", "127.0.0.1:9090")
# One process, so that encoder and heads are in memory once; ONNX Runtime uses all cores by itself,
# and the threads only wait for Label Studio or the database.
workers = 1
worker_class = "gthread"
threads = 8
# Label Studio itself waits for a prediction at most 100 s.
timeout = 120
graceful_timeout = 10
# Its default place is shared by all gunicorns of a user.
control_socket_disable = True
