"""The in-memory Label Studio with backends, webhooks and settings, as Label Studio 1.23 answers about them."""

import itertools
from dataclasses import replace
from typing import Any

from backend.label_studio.client import ProjectInfo
from carcond.errors import LabelStudioError
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio


class FakeConnections(FakeLabelStudio):
    """One project that somebody has used before.

    Attributes:
        settings: of the project, beside config and version.
        backends: connected ML backends.
        hooks: webhooks.
        refusals: path -> what is said to whoever wants to add something there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "sampling": "Sequential sampling",
            "show_collab_predictions": True,
            "maximum_annotations": 1,
        }
        self.backends: list[dict[str, Any]] = []
        self.hooks: list[dict[str, Any]] = []
        self.refusals: dict[str, str] = {}
        self._numbers = itertools.count(100)

    def add_backend(self, title: str, url: str, **more: Any) -> None:
        row = {"id": next(self._numbers), "title": title, "url": url, "state": "CO", "auth_method": "NONE"}
        self.backends.append(row | more)
        if not any(hook["url"] == f"{url}/webhook" for hook in self.hooks):
            self.hooks.append(self.hook(f"{url}/webhook"))

    def hook(self, url: str) -> dict[str, Any]:
        switches = {"is_active": True, "send_payload": True, "send_for_all_actions": True}
        return {"id": next(self._numbers), "url": url, "actions": [], "headers": {}, **switches}

    def project(self, project_id: int) -> ProjectInfo:
        info = super().project(project_id)
        labelled = sum(bool(task.annotations) for task in self._tasks.values())
        raw = {"id": PROJECT, "title": "cars", "num_tasks_with_annotations": labelled, **self.settings}
        return replace(info, sampling=self.settings["sampling"], raw=raw)

    def update_project(self, project_id: int, **changes: Any) -> None:
        if "model_version" in changes:
            if changes["model_version"] in {row["title"] for row in self.backends}:
                self.model_version = changes["model_version"]
            else:
                super().update_project(project_id, model_version=changes["model_version"])
        self.settings |= {name: value for name, value in changes.items() if name != "model_version"}

    def request(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["ml" | "webhooks" | "projects" | "tasks" as kind, *_]:
                return self._read(kind)
            case "POST", ["ml" | "webhooks" as kind]:
                return self._add(kind, json)
            case "PATCH", ["webhooks", number]:
                self._row(self.hooks, number).update(json)
            case "DELETE", ["ml" | "webhooks" as kind, number]:
                rows = self.backends if kind == "ml" else self.hooks
                rows.remove(self._row(rows, number))
            case "POST", ["dm", "actions"]:
                assert params is not None
                assert params["id"] == "delete_tasks_predictions"
                for task_id in json["selectedItems"]["included"]:
                    self._tasks[task_id].predictions.clear()
            case _:
                return super().request(method, path, json, params)
        return {}

    def _read(self, kind: str) -> Any:
        names = [p.model_version for task in self._tasks.values() for p in task.predictions.values()]
        return {
            "ml": list(self.backends),
            "webhooks": list(self.hooks),
            "projects": {name: names.count(name) for name in names},
            "tasks": {"tasks": [{"id": task.id, "data": task.data} for task in self._tasks.values()]},
        }[kind]

    def _add(self, kind: str, json: dict[str, Any]) -> dict[str, Any]:
        if kind in self.refusals:
            raise LabelStudioError(self.refusals[kind], 403)
        if json.get("auth_method", "NONE") not in ("NONE", "BASIC_AUTH") or not isinstance(
            json.get("is_active", True), bool
        ):
            raise LabelStudioError("Label Studio answered HTTP 400: this is not a valid choice.", 400)
        if kind == "webhooks":
            self.hooks.append(self.hook(json["url"]) | json)
            return {}
        self.add_backend(json["title"], json["url"], auth_method=json["auth_method"])
        self.model_version = self.model_version or json["title"]
        return {}

    @staticmethod
    def _row(rows: list[dict[str, Any]], number: str) -> dict[str, Any]:
        return next(row for row in rows if row["id"] == int(number))
