"""Substitutes for the published images, built from Debian's and Python's packages, for `scripts/check_compose`."""

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.compose.engine import Engine

_FOLDER = Path(__file__).resolve().parents[2] / "tests" / "deploy" / "stand_ins"
_DEBIAN = "carcond-check/debian:bookworm"
# Stand-in -> which of the stack's images it is tagged as, by the beginning of their names.
_IMAGES = {
    "python": "python:",
    "redis": "redis:",
    "postgres": "postgres:",
    "label-studio": "heartexlabs/label-studio:",
    "prometheus": "prom/prometheus:",
}
_MMDEBSTRAP = (
    *(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=python3,python3-pip,python3-venv,ca-certificates,tzdata",
    ),
    *('--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Check-Date "false"'),
    *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
)


def make_stand_ins(engine: Engine, checkout: Path, pip_config: Path) -> list[str]:
    """Build the images that the Dockerfile and docker-compose.yml name, unless they exist.

    Returns:
        The image names that they are tagged with.
    """
    context = engine.work / "stand-ins"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(_FOLDER, context)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
    shutil.copy(pip_config, context / "pip.conf")
    _make_debian(engine)
    wanted = set(
        re.findall(r"(?m)^(?:FROM |    image: |ARG PYTHON_IMAGE=)(\S+)", _read(checkout / "Dockerfile", checkout))
    )
    tags = []
    for name, prefix in _IMAGES.items():
        image = f"carcond-check/{name}"
        if not _has(engine, image):
            # The plain builder: the other one needs a plugin that Debian 12 does not have.
            command = ["docker", "build", "-q", "-t", image, "-f", str(context / f"{name}.Dockerfile"), str(context)]
            engine.run(command, DOCKER_BUILDKIT="0")
        tag = next(published for published in wanted if published.startswith(prefix))
        engine.run(["docker", "tag", image, tag])
        tags.append(tag)
    return tags


def _read(dockerfile: Path, checkout: Path) -> str:
    return dockerfile.read_text(encoding="utf-8") + (checkout / "docker-compose.yml").read_text(encoding="utf-8")


def _has(engine: Engine, image: str) -> bool:
    return engine.run(["docker", "image", "inspect", image], check=False).returncode == 0


def _make_debian(engine: Engine) -> None:
    if _has(engine, _DEBIAN):
        return
    archive = engine.work / "debian.tar"
    sources = "/etc/apt/sources.list.d/debian.sources"
    source = sources if Path(sources).exists() else "/etc/apt/sources.list"
    engine.run([*_MMDEBSTRAP, "bookworm", str(archive), source])
    engine.run(
        ["docker", "import", "-c", "ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", str(archive), _DEBIAN]
    )
    archive.unlink()


@contextmanager
def pip_config_for_builds(engine: Engine) -> Iterator[Path]:
    """A pip configuration that works inside a build: local package folders are served over HTTP.

    Yields:
        The file, for CARCOND_PIP_CONFIG. It is empty where pip here uses no folders.
    """
    asked = engine.run(["python3", "-m", "pip", "config", "get", "global.extra-index-url"], check=False).stdout
    bridge = "172.17.0.1"
    servers = [_serve(Path(folder), bridge) for folder in re.findall(r"file://(\S+)/simple", asked)]
    urls = [f"http://{bridge}:{server.server_address[1]}/simple" for server in servers]
    file = engine.work / "pip.conf"
    lines = ["[global]", "timeout = 180"]
    if urls:
        lines += [f"extra-index-url = {' '.join(urls)}", f"trusted-host = {bridge}"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield file
    finally:
        for server in servers:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _serve(folder: Path, address: str) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
