"""Requests and responses of Label Studio's page during labelling, read from the browser.

`scripts.page_requests` has the requests.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import ConsoleMessage, Error, Page, Response

from backend.label_studio.label_config import SHOWN_TAG

_WRITE = re.compile(r"/api/(tasks/\d+/annotations|annotations/\d+)/?")
_DRAFT = re.compile(r"/api/(tasks/\d+/drafts|drafts/\d+)/?")
_READ = re.compile(r"/api/tasks/(\d+)/?")
_OK = 300
_NOT_FOUND = 404
_BAD = 400


@dataclass(frozen=True)
class OpenedTask:
    """A task as Label Studio gave it to the page.

    Attributes:
        task_id: its id.
        data: its data, the photo's address among it.
        queue: reason for which it was served; empty when it was requested by its id.
        version: `model_version` of the prediction that the page opens it with; empty without one.
        slot: `cluster` of that prediction.
        has_answers: the prediction chooses something; a line of text, and what hides it, do not.
        has_line: the prediction has a line of text: one without answers says there that they are left to the annotator.
        is_fresh: there is no draft of it and no annotation.
    """

    task_id: int
    data: dict[str, Any]
    queue: str
    version: str
    slot: int | None
    has_answers: bool
    has_line: bool
    is_fresh: bool


class Traffic:
    """Listens to one page.

    Attributes:
        opened: last task that was given to the page.
        reads: number of tasks given to the page so far.
        accepted: number of submits, skips and updates that were accepted.
        accepted_at: `time.monotonic()` of the last of them.
        read_at: the same of the last task given to the page.
        drafts: number of drafts that were saved.
        refused: responses to those that were refused.
        is_out_of_tasks: True if the last request for the next task found none.
    """

    def __init__(
        self,
        page: Page,
        on_served: Callable[[OpenedTask], None],
        on_saved: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self.opened: OpenedTask | None = None
        self.reads = 0
        self.accepted = 0
        self.accepted_at = 0.0
        self.read_at = 0.0
        self.drafts = 0
        self.refused: list[str] = []
        self.is_out_of_tasks = False
        self._on_served = on_served
        self._on_saved = on_saved
        self._on_error = on_error
        page.on("response", self._hear)
        page.on("pageerror", lambda error: on_error(f"JavaScript: {error.stack or error}"[:600]))
        page.on("console", self._hear_console)

    def _hear(self, response: Response) -> None:
        address = urlsplit(response.url)
        method = response.request.method
        if method in ("POST", "PATCH") and _WRITE.fullmatch(address.path):
            self._hear_write(response, f"{method} {address.path}")
        elif method in ("POST", "PATCH") and response.status < _OK and _DRAFT.fullmatch(address.path):
            self.drafts += 1
        elif parse_qs(address.query).get("id") == ["next_task"]:
            self._hear_next(response)
        elif response.status >= _BAD and address.path.startswith(("/api/", "/data/")):
            self._on_error(f"{method} {address.path}: HTTP {response.status} {_text(response)}")
        elif method == "GET" and response.status < _OK and (asked := _READ.fullmatch(address.path)):
            self._take(response, int(asked[1]))

    def _hear_write(self, response: Response, what: str) -> None:
        if response.status < _OK:
            self.accepted += 1
            self.accepted_at = time.monotonic()
            self._on_saved()
        else:
            sent = (response.request.post_data or "")[:600]
            self.refused.append(f"{what}: HTTP {response.status} {_text(response)}; sent {sent}")

    def _hear_next(self, response: Response) -> None:
        self.is_out_of_tasks = response.status == _NOT_FOUND
        if response.status < _OK:
            self._take(response, None)
        elif not self.is_out_of_tasks:
            self._on_error(f"next task: HTTP {response.status} {_text(response)}")

    def _take(self, response: Response, asked: int | None) -> None:
        try:
            task = _opened(response.json())
        except (Error, ValueError, KeyError):  # the page was left meanwhile
            return
        self.opened = task
        self.reads += 1
        self.read_at = time.monotonic()
        if asked is None:
            self._on_served(task)

    def _hear_console(self, message: ConsoleMessage) -> None:
        # Failed loads are handled by their address, above.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self._on_error(f"console: {message.text[:300]}")


def _opened(row: dict[str, Any]) -> OpenedTask:
    predictions = row.get("predictions") or []
    first: dict[str, Any] = predictions[0] if predictions else {}
    return OpenedTask(
        task_id=int(row["id"]),
        data=dict(row["data"]),
        queue=str(row.get("queue") or ""),
        version=str(first.get("model_version") or ""),
        slot=first.get("cluster"),
        has_answers=any(_is_answer(region) for region in first.get("result") or []),
        has_line=any(region.get("type") == "textarea" for region in first.get("result") or []),
        is_fresh=not row.get("drafts") and not row.get("annotations"),
    )


def _is_answer(region: Mapping[str, Any]) -> bool:
    return region.get("type") == "choices" and region.get("from_name") != SHOWN_TAG


def _text(response: Response) -> str:
    try:
        return response.text()[:300]
    except Error:
        return ""
