"""The usual way to predict, as a baseline of benchmarks: each photo by itself, fetched, decoded whole, run in torch.

`python -m scripts.naive_predictor BACKBONE VIEWS TOKEN` reads lines of JSON, each a list of addresses, and answers each
with the seconds that it took. Its first line is the number of floating-point operations of one photo.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import numpy as np
from PIL import Image

_TOKEN = "NAIVE_PREDICTOR_TOKEN"  # noqa: S105 - a variable's name


class NaivePredictor:
    """The baseline in a process of its own.

    Attributes:
        operations: floating-point operations of the network for one photo; a multiplication and an addition are two.
    """

    def __init__(self, backbone: str, views: Sequence[int], token: str = "") -> None:
        """Start it.

        Args:
            backbone: timm's name of the network; its weights are random.
            views: sides of the views of a photo, in pixels.
            token: Label Studio's; sent with each request if there is one.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.naive_predictor", backbone, "+".join(map(str, views))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, _TOKEN: token},  # arguments could be read by other users
        )
        self.operations = float(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.communicate(timeout=60)

    def seconds(self, urls: Sequence[str]) -> float:
        """Predict photos one after the other, and return how long that took."""
        if self._process.stdin:
            self._process.stdin.write(json.dumps(list(urls)) + "\n")
            self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("expected an answer of the naive predictor, it has ended: see its error above")
        return line


def main() -> None:
    """Serve requests of `NaivePredictor`."""
    # Imported here: the process that compares must not hold torch.
    import torch  # noqa: PLC0415
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

    from carcond.settings import parse_views  # noqa: PLC0415
    from carcond.training.network import TwoHeadNetwork  # noqa: PLC0415
    from carcond.training.pretrained_weights import load_backbone  # noqa: PLC0415

    name, views = sys.argv[1:3]
    token = os.environ[_TOKEN]
    torch.set_num_threads(os.cpu_count() or 1)
    backbone = load_backbone(name, "random", parse_views(views))
    network = TwoHeadNetwork(backbone).eval()
    side = max(parse_views(views))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    print(counter.get_total_flops(), flush=True)
    headers = {"Authorization": f"Token {token}"} if token else {}
    with httpx.Client(headers=headers, trust_env=False, timeout=60) as client, torch.inference_mode():
        for line in sys.stdin:
            began = time.perf_counter()
            for url in json.loads(line):
                photo = Image.open(BytesIO(client.get(url).raise_for_status().content)).convert("RGB")
                square = np.asarray(photo.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
                network(torch.from_numpy((square - 0.5) / 0.5).permute(2, 0, 1)[None])
            print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
