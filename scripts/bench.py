"""Benchmarks: each prints a table for people, or JSON with --json for machines."""

import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

# Run as a file, Python looks for modules beside this one and not in the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from carcond.encoder import Encoder, find_encoder
from carcond.errors import CarcondError
from carcond.settings import get_settings
from scripts.bench_explain import bench_explain
from scripts.bench_loop import bench_loop
from scripts.bench_refit import bench_refit
from scripts.bench_rest import bench_rest
from scripts.bench_serving import bench_serving
from scripts.ports import free_ports
from scripts.preflight import StackError
from scripts.stack import Stack, StackOptions

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
_log = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON only")]
DataOption = Annotated[Path | None, typer.Option(help="keep the stack's data here; without it, a temporary folder")]


@contextlib.contextmanager
def _stack(data: Path | None, models_dir: Path | None) -> Iterator[Stack]:
    with contextlib.ExitStack() as resources:
        folder = data or Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="carcond-bench-")))
        label_studio_port, backend_port, redis_port = free_ports(3)
        options = StackOptions(folder, label_studio_port, backend_port, redis_port, models_dir=models_dir)
        yield resources.enter_context(Stack(options, _log.print))


@app.command()
def loop(
    photos: Annotated[Path, typer.Option(help="folder with the photos")],
    labels: Annotated[Path, typer.Option(help="CSV with the columns file, damage, cleanliness, and maybe split")],
    count: Annotated[int, typer.Option(help="how many photos to label")] = 200,
    every: Annotated[int, typer.Option(help="measure after every so many labels")] = 25,
    data: DataOption = None,
    models_dir: Annotated[Path | None, typer.Option(help="take the encoder from here")] = None,
    as_json: JsonOption = False,
) -> None:
    """Label a real stack with an oracle, in the order served, and measure the model and the waiting."""
    with _stack(data, models_dir) as stack:
        report = bench_loop(stack, photos, labels, count=count, every=every, say=_log.print)
    if as_json:
        print(json.dumps(report))
        return
    curve = report.pop("curve")
    _print_rows("Score on the test split", [_flat(point) for point in curve])
    _print_rows("The loop", [_flat(report)])


@app.command()
def serving(as_json: JsonOption = False, models_dir: Annotated[Path | None, typer.Option()] = None) -> None:
    """Measure the backend's routes beside a working worker, its start, and its memory."""
    with _stack(None, models_dir) as stack:
        report = bench_serving(stack)
    print(json.dumps(report)) if as_json else _print_rows("Serving", [_flat(report)])


@app.command()
def rest(as_json: JsonOption = False) -> None:
    """Measure the JSON API: one caller, twenty at once, and Label Studio's routes beside them."""
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        report = bench_rest(Path(folder))
    print(json.dumps(report)) if as_json else _print_rows("The JSON API", [_flat(report)])


@app.command()
def refit(as_json: JsonOption = False) -> None:
    """Measure fitting the heads on 1 000 labels of made-up embeddings, calibration included."""
    report = bench_refit()
    print(json.dumps(report)) if as_json else _print_rows("Refit", report["rows"])


@app.command()
def explain(
    as_json: JsonOption = False,
    models_dir: Annotated[Path | None, typer.Option(help="take the encoder from here")] = None,
) -> None:
    """Measure what the picture of an activation costs on top of a prediction, with the encoder in use."""
    settings = get_settings()
    encoder = Encoder.load(find_encoder(models_dir or settings.models_dir), settings.encoder_threads)
    report = bench_explain(encoder)
    if as_json:
        print(json.dumps(report))
        return
    _print_rows("Steps", report.pop("rows"))
    _print_rows("Explain", [report])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[prefix + key] = value
    return flat


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if len(rows) == 1:  # many figures of one thing read better downwards
        rows = [{"figure": name, "value": value} for name, value in rows[0].items()]
    table = Table(title=title)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        values = [row.get(column, "") for column in columns]
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values))
    Console(width=200).print(table)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        app()
    except (CarcondError, StackError) as error:
        sys.exit(f"bench: {error}")
