"""Writes the reference pages of the documentation from the code: settings, commands, HTTP, metrics and findings.

.venv/bin/python scripts/reference.py
.venv/bin/python scripts/reference.py --check    # writes nothing; fails if a page is out of date
"""

import html
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer.main
from flask import Flask
from prometheus_client.metrics_core import Metric
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from backend.cli.main import app as commands  # noqa: E402
from backend.doctor.checks import kinds  # noqa: E402
from backend.services import Services  # noqa: E402
from backend.web.app import create_app  # noqa: E402 - the path has to be set first
from backend.web.metrics import Metrics  # noqa: E402
from carcond.settings import Settings, variable_name  # noqa: E402
from scripts.ports import free_ports  # noqa: E402
from scripts.redis_server import answers, redis_process  # noqa: E402

PAGES = REPOSITORY / "docs" / "reference"
_NOTE = "<!-- Written by scripts/reference.py from the code: change the code, and run it again. -->"
# Methods other than those that Flask answers by itself.
_OWN_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def settings_page() -> str:
    """All settings, in the order of the code."""
    rows = [
        f"| `{variable_name(name)}` | {_default(field)} | {field.description}{_bounds(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "All come from the environment, read once, when a process starts. An empty variable means the default.",
        ["| name | default | meaning |", "|---|---|---|", *rows],
    )


def _default(field: FieldInfo) -> str:
    value = field.default
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    text = "+".join(map(str, text)) if isinstance(text, tuple) else text
    return "" if text in ("", (), {}, None) else f"`{text}`"


def _bounds(field: FieldInfo) -> str:
    words = [
        text.format(f"{getattr(rule, name):,}".replace(",", " "))
        for rule in field.metadata
        for name, text in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    return f" ({', '.join(words)})" if words else ""


def commands_page() -> str:
    """All commands, from their `--help`."""
    command = typer.main.get_command(commands)
    text = html.unescape(get_docs_for_click(obj=command, ctx=typer.Context(command), name="carcond"))
    body = text.partition("\n")[2].strip()
    # Typer runs lines together that Markdown would: an example is a line of its own.
    body = re.sub(r"^Example: (.+)$", r"    \1", body, flags=re.MULTILINE)
    return _page("Commands", "", [body])


def http_page(app: Flask) -> str:
    """All routes of the backend."""
    rows = []
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        told = (app.view_functions[rule.endpoint].__doc__ or "").strip().partition("\n")[0]
        methods = " ".join(sorted(_OWN_METHODS & (rule.methods or set())))
        if rule.endpoint != "static":
            rows.append(f"| {methods} | `{rule.rule.replace('<', '{').replace('>', '}')}` | {told} |")
    return _page("HTTP", "The routes of the backend.", ["| method | path | what it does |", "|---|---|---|", *rows])


def metrics_page(metrics: Iterable[Metric]) -> str:
    """All metrics, by name; `process_...`, which every Python program exports, are left out."""
    rows = [
        f"| `{metric.name}{'_total' if metric.type == 'counter' else ''}` | {metric.type} "
        f"| {', '.join(_labels(metric))} | {metric.documentation} |"
        for metric in sorted(metrics, key=lambda metric: metric.name)
        if metric.name.startswith("carcond_")
    ]
    return _page(
        "Metrics",
        "Metrics of `GET /metrics`, in Prometheus's format.",
        ["| name | type | labels | meaning |", "|---|---|---|---|", *rows],
    )


def _labels(metric: Metric) -> list[str]:
    declared = getattr(metric, "_labelnames", ())
    return sorted({*declared, *(label for sample in metric.samples for label in sample.labels if label != "le")})


def findings_page() -> str:
    """All findings of `carcond doctor`."""
    rows = [
        f"| `{kind.name}` | {kind.level} | {kind.symptom} | {kind.example.what}<br>{kind.why} | {kind.example.fix} |"
        for kind in kinds()
    ]
    return _page(
        "Findings",
        "Findings of `carcond doctor`. Words in capitals are placeholders.",
        ["| name | level | what people see | what the doctor says | fix |", "|---|---|---|---|---|", *rows],
    )


def _page(title: str, text: str, lines: Iterable[str]) -> str:
    head = [f"# {title}", "", _NOTE, ""]
    return "\n".join([*head, *([text, ""] if text else []), *lines]) + "\n"


def pages(services: Services) -> dict[str, str]:
    """File name -> text of all pages.

    Args:
        services: of an empty store, and a Redis that answers.
    """
    app = create_app(services)
    metrics = Metrics(services)
    metrics.count_request("/health", 200, 0.0)  # a counter has no labels before its first count
    return {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "http.md": http_page(app),
        "metrics.md": metrics_page(metrics.collect()),
        "findings.md": findings_page(),
    }


@contextmanager
def _empty_stack() -> Iterator[Services]:
    """Services of an empty store and an empty Redis."""
    with tempfile.TemporaryDirectory() as folder:
        (port,) = free_ports(1)
        redis = redis_process(Path(folder), port, "reference", Path(folder) / "redis.log")
        os.environ["REDIS_URL"] = f"redis://:reference@127.0.0.1:{port}/0"
        os.environ["DATABASE_URL"] = f"sqlite:///{folder}/store.sqlite3"
        redis.start()
        try:
            redis.wait_until(lambda: answers(os.environ["REDIS_URL"]), 10)
            yield Services(Settings())
        finally:
            redis.stop()


def stale_pages(texts: Mapping[str, str], folder: Path) -> list[str]:
    """Names of the pages in a folder that are missing or out of date."""
    return [
        name
        for name, text in texts.items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main() -> None:
    """Write all pages, or check them."""
    logging.disable(logging.INFO)
    with _empty_stack() as services:
        texts = pages(services)
    if "--check" in sys.argv[1:]:
        if stale := stale_pages(texts, PAGES):
            sys.exit(f"not what the code says: {', '.join(stale)}; run .venv/bin/python scripts/reference.py")
        return
    PAGES.mkdir(exist_ok=True)
    for name, text in texts.items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
