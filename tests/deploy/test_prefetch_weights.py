"""The weights in the image, with a hub of our own: another process, since the hub's client reads its settings once."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = b"no weights, but kept all the same"

pytestmark = pytest.mark.slow


class Hub(SimpleHTTPRequestHandler):
    """Serves a folder, with what the hub's client wants to know of each file."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", "a" * 40)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub that has the weights of one network."""
    folder = tmp_path / "timm" / "efficientnet_b4.ra2_in1k" / "resolve" / "main"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def prefetch(home: Path, hub_url: str, name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "prefetch_weights.py"), name],
        env=os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": hub_url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_weights_are_kept_where_the_encoder_looks_for_them(hub: str, tmp_path: Path) -> None:
    assert "are in the image" in prefetch(tmp_path, hub, "efficientnet_b4")
    kept = try_to_load_from_cache("timm/efficientnet_b4.ra2_in1k", "model.safetensors", cache_dir=tmp_path / "hub")
    assert isinstance(kept, str)
    assert Path(kept).read_bytes() == WEIGHTS


def test_a_build_without_the_hub_goes_on(tmp_path: Path) -> None:
    assert "are looked for at the first start" in prefetch(tmp_path, "http://127.0.0.1:9", "efficientnet_b4")


def test_a_build_for_an_unknown_network_goes_on(tmp_path: Path) -> None:
    assert "timm knows no weights of 'x9'" in prefetch(tmp_path, "http://127.0.0.1:9", "x9")
