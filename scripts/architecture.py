"""Draws docs/images/architecture.svg, the rooms of the two packages and who imports whom, from the imports.

    .venv/bin/python scripts/architecture.py

A module belongs to the room that names it; a test fails when one belongs to none, or when rooms import each other
in a circle.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from xml.sax.saxutils import escape

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "images" / "architecture.svg"
PACKAGES = ("backend", "carcond")

ROOMS: dict[str, tuple[str, ...]] = {
    "status": ("backend.project_status", "backend.learning", "backend.finetune_view"),
    "commands": ("backend.cli", "backend.commands*", "backend.*_view", "backend.csv_file"),
    "demo, dashboard": ("backend.demo*",),
    "doctor": ("backend.doctor*",),
    "web": ("backend.app", "backend.model", "backend.security", "backend.gunicorn_conf", "backend.mirroring"),
    "JSON API": ("backend.rest*",),
    "metrics": ("backend.metrics", "backend.*_metrics"),
    "worker": ("backend.worker",),
    "jobs": (
        "backend.jobs",
        "backend.turn_log",
        "backend.finetune_record",
        "backend.finetune_jobs",
        "backend.finetuning",
        "backend.trainer_process",
    ),
    "loop": (
        *("backend.loop", "backend.refit", "backend.pool", "backend.snapshot", "backend.embedding", "backend.encoders"),
        *("backend.sync", "backend.publishing", "backend.damage_boxes", "backend.reason_line"),
    ),
    "serving version": ("backend.serving", "backend.judge"),
    "look again": ("backend.review", "backend.tabs"),
    "backend, webhook": (
        *("backend.backend_address", "backend.ssrf_guard", "backend.ml_backends", "backend.webhooks"),
        *("backend.connection.changes", "backend.provision", "backend.address_probes"),
    ),
    "connection": ("backend.connection*",),
    "Label Studio": ("backend.labelstudio", "backend.token_auth", "backend.label_config", "backend.photos"),
    "services": ("backend.services",),
    "backup": ("backend.backup", "carcond.archive"),
    "fine-tuning": ("carcond.finetuning*",),
    "simulation": (
        *("carcond.simulate", "carcond.replay", "carcond.problem", "carcond.savings", "carcond.curve_plot"),
        *("carcond.strategy", "carcond.batches"),
    ),
    "label quality": ("carcond.quality", "carcond.suspects", "carcond.agreement", "carcond.rated_folder"),
    "when to stop": ("carcond.learning_curve", "carcond.forecast", "carcond.labels_saved", "carcond.holdout_curve"),
    "fleet": ("carcond.fleet*",),
    "condition": ("carcond.condition*", "carcond.photo_checks", "carcond.portable_model"),
    "why": ("carcond.explain", "carcond.activation_picture", "carcond.suspected_box"),
    "registry": ("carcond.registry", "carcond.promotions", "carcond.landmark", "carcond.model_mirror"),
    "report card": ("carcond.report_*", "carcond.card_values", "carcond.plain_page"),
    "gate": ("carcond.gate",),
    "evaluation": ("carcond.evaluation", "carcond.calibration", "carcond.intervals"),
    "acquisition": ("carcond.acquisition", "carcond.selection"),
    "examples": ("carcond.examples", "carcond.split", "carcond.labels", "carcond.exports", "carcond.label_table"),
    "heads": ("carcond.heads", "carcond.head_fitting", "carcond.folds", "carcond.one_core"),
    "encoder": ("carcond.encoder", "carcond.encoder_card", "carcond.embedding_cache", "carcond.car_head"),
    "store": ("carcond.store", "carcond.database", "carcond.schema", "carcond.tables", "carcond.migrations*"),
    "photos": ("carcond.images", "carcond.groups", "carcond.photo_folder", "carcond.samples", "carcond.drawn_car"),
    "words": ("carcond.taxonomy", "carcond.settings", "carcond.errors", "carcond.files"),
}

_BOX = (170, 46)
_GAP = (26, 62)
_MARGIN = 40
_COLOURS = {"backend": "#c5cae9", "carcond": "#c8e6c9"}
_STYLE = "font-family='system-ui, sans-serif' font-size='14' fill='#1a1a1a'"

Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Place:
    """Where a room is drawn: centre of its box in pixels."""

    x: float
    y: float


def module_imports(root: Path) -> Graph:
    """Module -> the modules of the two packages that it imports, inside functions too."""
    files = {_module(path, root): path for package in PACKAGES for path in (root / package).rglob("*.py")}
    return {module: set(_imported(path, files)) - {module} for module, path in files.items()}


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names a module, `from module import thing` does not.
            found = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in found if node.module in known)


def room_of(module: str) -> str | None:
    """The room of a module: the first that names it."""
    return next((room for room, patterns in ROOMS.items() if any(fnmatchcase(module, p) for p in patterns)), None)


def room_imports(modules: Graph) -> Graph:
    """Room -> the rooms that its modules import. Modules without a room, packages among them, are left out."""
    rooms: Graph = {room: set() for room in ROOMS}
    for module, imported in modules.items():
        room = room_of(module)
        if room:
            rooms[room] |= {other for name in imported if (other := room_of(name))} - {room}
    return rooms


def reachable(rooms: Graph, room: str) -> set[str]:
    """All rooms that a room imports, directly or through others."""
    found: set[str] = set()
    waiting = list(rooms[room])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += rooms[other]
    return found


def essential(rooms: Graph) -> Graph:
    """The imports that do not follow from others: with all of them nothing could be seen."""
    behind = {room: reachable(rooms, room) for room in rooms}
    return {
        room: {other for other in imported if not any(other in behind[third] for third in imported - {other})}
        for room, imported in rooms.items()
    }


def layers(rooms: Graph) -> list[list[str]]:
    """Rooms from top to bottom: each above all that it imports, and as low as it can be.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    circle = sorted(room for room in rooms if room in reachable(rooms, room))
    if circle:
        raise ValueError(f"expected rooms that do not import each other in a circle, got {', '.join(circle)}")
    depth: dict[str, int] = {}

    def measure(room: str) -> int:
        if room not in depth:
            depth[room] = 1 + max((measure(other) for other in rooms[room]), default=-1)
        return depth[room]

    top = max(measure(room) for room in rooms)
    return [[room for room in rooms if depth[room] == level] for level in range(top, -1, -1)]


def picture(rooms: Graph) -> str:
    """The rooms as an SVG picture."""
    rows = layers(rooms)
    width = max(len(row) for row in rows) * (_BOX[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN
    height = len(rows) * (_BOX[1] + _GAP[1]) - _GAP[1] + 2 * _MARGIN
    places = dict(_places(rows, width))
    arrows = [
        _arrow(places[room], places[other]) for room, found in essential(rooms).items() for other in sorted(found)
    ]
    boxes = [_box(room, place) for room, place in places.items()]
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img' "
        "aria-label='The rooms of backend and carcond, and which imports which'>"
    )
    return "\n".join(
        [head, _MARKER, f"<rect width='{width}' height='{height}' fill='#ffffff'/>", *arrows, *boxes, "</svg>", ""]
    )


_MARKER = (
    "<defs><marker id='head' viewBox='0 0 8 8' refX='8' refY='4' markerWidth='8' markerHeight='8' orient='auto'>"
    "<path d='M0 0 L8 4 L0 8 z' fill='#616161'/></marker></defs>"
)


def _places(rows: list[list[str]], width: int) -> Iterator[tuple[str, Place]]:
    for level, row in enumerate(rows):
        left = (width - len(row) * (_BOX[0] + _GAP[0]) + _GAP[0]) / 2
        for column, room in enumerate(row):
            x = left + column * (_BOX[0] + _GAP[0]) + _BOX[0] / 2
            yield room, Place(x, _MARGIN + level * (_BOX[1] + _GAP[1]) + _BOX[1] / 2)


def _arrow(upper: Place, lower: Place) -> str:
    begin, end = upper.y + _BOX[1] / 2, lower.y - _BOX[1] / 2
    middle = (begin + end) / 2
    return (
        f"<path d='M{upper.x:g} {begin:g} C{upper.x:g} {middle:g} {lower.x:g} {middle:g} {lower.x:g} {end:g}' "
        "fill='none' stroke='#616161' stroke-width='1.2' marker-end='url(#head)'/>"
    )


def _box(room: str, place: Place) -> str:
    package = ROOMS[room][0].partition(".")[0]
    return (
        f"<rect x='{place.x - _BOX[0] / 2:g}' y='{place.y - _BOX[1] / 2:g}' width='{_BOX[0]}' height='{_BOX[1]}' "
        f"rx='8' fill='{_COLOURS[package]}' stroke='#616161'/>"
        f"<text x='{place.x:g}' y='{place.y + 5:g}' text-anchor='middle' {_STYLE}>{escape(room)}</text>"
    )


def main() -> None:
    """Draw the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(room_imports(module_imports(REPOSITORY))), encoding="utf-8")


if __name__ == "__main__":
    main()
