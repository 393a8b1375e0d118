"""Photos behind a real web server, for benchmarks: Label Studio, or a server of plain files."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from scripts.ports import free_ports
from scripts.processes import ManagedProcess
from scripts.stack import Stack, StackOptions

_SIZE = (1280, 960)

Source = Literal["label-studio", "static"]


@dataclass(frozen=True)
class PhotoSource:
    """Photos that can be fetched.

    Attributes:
        urls: address of each photo, as in a task's data.
        label_studio_url: of the Label Studio that serves them; empty for a server of files.
        token: Label Studio's.
        hosts: host and port of the server of files, to be allowed.
    """

    urls: tuple[str, ...]
    label_studio_url: str = ""
    token: str = field(default="", repr=False)
    hosts: str = ""


@contextlib.contextmanager
def photo_source(source: Source, count: int, say: Callable[[str], None]) -> Iterator[PhotoSource]:
    """Photos of 1280x960 pixels behind a server that runs meanwhile.

    Args:
        source: "label-studio" starts a stack, and imports the photos into a project; "static" serves files.
        count: number of photos.
        say: progress callback.
    """
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number in range(count):
            (photos / f"{number}.jpg").write_bytes(noise_photo(number))
        serve = _at_label_studio(photos, Path(folder), say) if source == "label-studio" else _as_files(photos)
        with serve as found:
            yield found


@contextlib.contextmanager
def _at_label_studio(photos: Path, folder: Path, say: Callable[[str], None]) -> Iterator[PhotoSource]:
    label_studio_port, backend_port, redis_port = free_ports(3)
    # The stack's own encoder encodes nothing.
    small = {"CARCOND_BACKBONE": "efficientnet_lite0", "CARCOND_BACKBONE_WEIGHTS": "random", "CARCOND_VIEWS": "224"}
    options = StackOptions(folder / "stack", label_studio_port, backend_port, redis_port, extra_environment=small)
    with Stack(options, say) as stack:
        # It is not connected to the stack's backend, whose worker would embed the photos meanwhile.
        project_id = int(stack.api().request("POST", "/api/projects", json={"title": "photos"})["id"])
        stack.import_photos(project_id, photos)
        urls = tuple(str(task.data["image"]) for task in stack.api().tasks(project_id))
        yield PhotoSource(urls, stack.label_studio_url, stack.api_key)


@contextlib.contextmanager
def _as_files(photos: Path) -> Iterator[PhotoSource]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"]
    server = ManagedProcess("photos", command, os.environ, photos.with_name("photos.log"), photos)
    server.start()
    try:
        server.wait_for_url(f"http://127.0.0.1:{port}/0.jpg", 30)
        urls = tuple(f"http://127.0.0.1:{port}/{photo.name}" for photo in sorted(photos.iterdir()))
        yield PhotoSource(urls, hosts=f"127.0.0.1:{port}")
    finally:
        server.stop()


def noise_photo(seed: int = 0) -> bytes:
    """A JPEG of 1280x960 pixels with as much detail as a photo has: clouds of noise of several sizes."""
    generator = np.random.default_rng(seed)
    sizes = [(5, 4), (40, 30), (320, 240), (1280, 960)]
    layers = [Image.fromarray(generator.integers(0, 256, (h, w, 3), np.uint8)).resize(_SIZE) for w, h in sizes]
    mixed = sum(
        np.asarray(layer, np.float32) * share for layer, share in zip(layers, (0.5, 0.3, 0.15, 0.05), strict=True)
    )
    file = BytesIO()
    Image.fromarray(np.asarray(mixed, np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
