"""The backend's routes on a real stack, while the worker is busy; its start and its memory."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from carcond.data.synthetic_photos import draw_samples
from scripts.oracle import Oracle, read_truth
from scripts.stack import Stack

_PHOTOS = 60
_REQUESTS = 300


def bench_serving(stack: Stack) -> dict[str, Any]:
    """Milliseconds of each route (median, p99), seconds to start and megabytes of memory.

    The webhook is posted as fast as it answers, so the worker runs turns all the time.
    """
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        photos = Path(folder)
        draw_samples(photos, _PHOTOS, seed=0, labels=True)
        project_id = stack.provision("bench").project_id
        stack.import_photos(project_id, photos)
        oracle = Oracle(stack.api(), project_id, read_truth(photos / "labels.csv"))
        oracle.label_until_versioned()
        auth = (stack.credentials.backend_user, stack.credentials.backend_password)
        with httpx.Client(base_url=stack.backend_url, auth=auth, trust_env=False) as client:
            task = oracle.next_task()
            config = stack.api().project(project_id).label_config
            nudge = {"action": "ANNOTATION_CREATED", "project": {"id": project_id}}
            predict = {"tasks": [task], "project": f"{project_id}.0", "label_config": config}
            report: dict[str, Any] = {
                "webhook_ms": _time(lambda: client.post("/webhook", json=nudge)),
                "health_ms": _time(lambda: client.get("/health")),
                "predict_kept_ms": _time(lambda: client.post("/predict", json=predict)),
            }
        report["memory_mb"] = _memory_of_web_process(stack.pids["backend"])
        began = time.monotonic()
        stack.restart("backend")
        stack.wait_until_up("backend")
        return {**report, "start_s": round(time.monotonic() - began, 2)}


def _time(call: Callable[[], httpx.Response]) -> dict[str, float]:
    milliseconds = []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        call().raise_for_status()
        milliseconds.append(1000 * (time.perf_counter() - began))
    return {
        "median": round(statistics.median(milliseconds), 2),
        "p99": round(float(np.quantile(milliseconds, 0.99)), 2),
    }


def _memory_of_web_process(pid: int) -> int:
    """Resident memory of gunicorn's largest web process, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    sizes = []
    for child in children:
        status = Path(f"/proc/{child}/status").read_text(encoding="utf-8")
        sizes.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
    return max(sizes)
