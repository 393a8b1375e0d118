"""Benchmarks: each prints a table for people, or JSON with --json for machines."""

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

# Run as a file, Python looks for modules beside this one and not in the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.cli.pairs import parse_pairs
from carcond import fault_points
from carcond.analysis.replay_set import Columns, embed_rows, group_rows, load_dataset
from carcond.data.label_table import read_rows
from carcond.data.synthetic_photos import draw_samples
from carcond.errors import CarcondError
from carcond.model.encoder import Encoder, encoders_dir, find_encoder
from carcond.settings import get_settings, parse_views
from carcond.taxonomy import DAMAGE
from scripts.bench_chaos import bench_chaos
from scripts.bench_embed import bench_embed
from scripts.bench_explain import bench_explain
from scripts.bench_figures import figures as bench_figures
from scripts.bench_labellers import bench_labellers
from scripts.bench_load import bench_load
from scripts.bench_loop import bench_loop
from scripts.bench_pool import bench_pool
from scripts.bench_predict import bench_predict
from scripts.bench_refit import bench_refit
from scripts.bench_rest import bench_rest
from scripts.bench_scale import bench_scale
from scripts.bench_serving import bench_serving
from scripts.bench_startup import bench_startup
from scripts.bench_views import bench_views, export_views, time_encoders
from scripts.photo_source import Source, photo_source
from scripts.photo_workload import Workload
from scripts.ports import free_ports
from scripts.preflight import StackError
from scripts.stack import CHECKOUT, Stack, StackOptions

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
_log = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON only")]
ModelsOption = Annotated[Path | None, typer.Option(help="models directory with the encoder")]
PeopleOption = Annotated[int, typer.Option(min=1, help="number of annotators, each in a browser")]
PhotosOption = Annotated[Path | None, typer.Option(help="folder with the photos. Default: drawn cars")]
LabelsOption = Annotated[Path | None, typer.Option(help="CSV with the columns file, damage, cleanliness")]
PoolOption = Annotated[int, typer.Option(min=1, help="number of drawn cars")]
ArtefactsOption = Annotated[Path | None, typer.Option(help="folder for screenshots of failures")]
DatabaseOption = Annotated[
    str, typer.Option(help="an empty PostgreSQL database for Label Studio, as postgresql://USER@HOST:PORT/NAME")
]
DataOption = Annotated[Path | None, typer.Option(help="folder for the stack's data. Default: temporary")]


@contextlib.contextmanager
def _stack(
    data: Path | None, models_dir: Path | None, postgres_url: str = "", faults: Path | None = None
) -> Iterator[Stack]:
    with contextlib.ExitStack() as resources:
        folder = data or Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="carcond-bench-")))
        if models_dir:
            _take_encoder(models_dir, folder / "models")
        label_studio_port, backend_port, redis_port = free_ports(3)
        options = StackOptions(
            folder,
            label_studio_port,
            backend_port,
            redis_port,
            label_studio_postgres=postgres_url,
            extra_environment={fault_points.VARIABLE: str(faults)} if faults else {},
        )
        yield resources.enter_context(Stack(options, _log.print))


@contextlib.contextmanager
def _pool(photos_dir: Path | None, labels: Path | None, count: int) -> Iterator[tuple[Path, Path]]:
    """The folder with the photos and the CSV of their classes: those that are named, else of so many drawn cars."""
    if (photos_dir is None) != (labels is None):
        raise typer.BadParameter("--photos-dir and --labels go together")
    with tempfile.TemporaryDirectory(prefix="carcond-cars-") as drawn:
        if photos_dir is None or labels is None:
            photos_dir, labels = Path(drawn), Path(drawn) / "labels.csv"
            draw_samples(photos_dir, count, seed=7, labels=True)
        yield photos_dir, labels


def _take_encoder(models_dir: Path, own: Path) -> None:
    """Copy the encoders but not the versions, which are of other projects with the same numbers."""
    if not encoders_dir(models_dir).is_dir():
        raise StackError(f"expected an encoder in {encoders_dir(models_dir)}: leave out --models-dir, or name another")
    shutil.copytree(encoders_dir(models_dir), encoders_dir(own), dirs_exist_ok=True)


@app.command()
def loop(
    photos: Annotated[Path, typer.Option(help="folder with the photos")],
    labels: Annotated[Path, typer.Option(help="CSV with the columns file, damage, cleanliness and optionally split")],
    count: Annotated[int, typer.Option(help="number of photos to label")] = 200,
    every: Annotated[int, typer.Option(help="number of labels between two measurements")] = 25,
    replays: Annotated[int, typer.Option(min=0, help="number of replays of the service to compare it with")] = 0,
    data: DataOption = None,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label a real stack with an oracle, in the order served, and measure accuracy and waiting time."""
    with _stack(data, models_dir) as stack:
        report = bench_loop(stack, photos, labels, count=count, every=every, replays=replays, say=_log.print)
    if as_json:
        print(json.dumps(report))
        return
    curve, replayed = report.pop("curve"), report.pop("replay")
    _print_rows("Score on the test split", [_flat(point) for point in curve])
    if replayed:
        _print_rows("The service and its replay", [*replayed, {}])
    _print_rows("The loop", [_flat(report)])


@app.command()
def labellers(
    people: PeopleOption = 2,
    photos: Annotated[int, typer.Option(min=1, help="number of photos they label together")] = 300,
    pace: Annotated[float, typer.Option(min=0.1, help="mean time per photo, in seconds")] = 2.0,
    photos_dir: PhotosOption = None,
    labels: LabelsOption = None,
    pool: PoolOption = 1000,
    seed: Annotated[int, typer.Option(help="seed of the annotators' actions")] = 1,
    artefacts: ArtefactsOption = None,
    label_studio_database: DatabaseOption = "",
    data: DataOption = None,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label a real stack in Chromium, and count refused, blank, duplicate and lost labels."""
    with (
        _pool(photos_dir, labels, pool) as (folder, truth),
        _stack(data, models_dir, label_studio_database) as stack,
    ):
        report = bench_labellers(
            stack,
            folder,
            truth,
            people=people,
            photos=photos,
            pace_s=pace,
            artefacts=artefacts or Path(tempfile.gettempdir()) / f"carcond-labellers-{os.getpid()}",
            seed=seed,
            say=_log.print,
        )
    if as_json:
        print(json.dumps(report))
        return
    incidents, differences = report.pop("incidents"), report.pop("differences")
    _print_rows("People who label", [_flat(report)])
    if incidents:
        _print_rows("What should not be", [*incidents, {}])
    for difference in differences:
        print(difference)


@app.command()
def chaos(
    minutes: Annotated[float, typer.Option(min=0.5, help="time of labelling and killing")] = 30,
    people: PeopleOption = 2,
    pace: Annotated[float, typer.Option(min=0.1, help="mean time per photo, in seconds")] = 3.0,
    photos_dir: PhotosOption = None,
    labels: LabelsOption = None,
    pool: PoolOption = 1000,
    seed: Annotated[int, typer.Option(help="seed of the annotators' actions and of the kills")] = 1,
    artefacts: ArtefactsOption = None,
    data: DataOption = None,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label a real stack in Chromium while its servers are killed at random; count lost and doubled labels."""
    with (
        _pool(photos_dir, labels, pool) as (folder, truth),
        tempfile.TemporaryDirectory(prefix="carcond-faults-") as faults,
        _stack(data, models_dir, faults=Path(faults)) as stack,
    ):
        report = bench_chaos(
            stack,
            folder,
            truth,
            minutes=minutes,
            people=people,
            pace_s=pace,
            artefacts=artefacts or Path(tempfile.gettempdir()) / f"carcond-chaos-{os.getpid()}",
            seed=seed,
            say=_log.print,
        )
    if as_json:
        print(json.dumps(report))
        return
    differences = report.pop("differences")
    _print_rows("Labelling through kills", [_flat(report)])
    for difference in differences:
        print(difference)


@app.command()
def load(
    minutes: Annotated[float, typer.Option(min=0.5, help="time of labelling through the API")] = 10,
    labellers: Annotated[int, typer.Option(min=1, help="number of annotators, each at most one label a second")] = 50,
    people: Annotated[int, typer.Option(min=0, help="number of annotators in a browser beside them")] = 2,
    tasks: Annotated[int, typer.Option(min=100, help="number of tasks")] = 6000,
    data: DataOption = None,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a burst of 10 000 webhooks, 50 clients at once, a /predict of 5 000 tasks, and 50 annotators."""
    with _stack(data, models_dir) as stack:
        report = bench_load(stack, minutes=minutes, labellers=labellers, people=people, tasks=tasks, say=_log.print)
    print(json.dumps(report)) if as_json else _print_rows("Load", [_flat(report)])


@app.command()
def startup(
    empty_cache: Annotated[bool, typer.Option(help="install with an empty cache of pip, which is counted too")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the first start: time and disk from a bare clone until photos can be labelled."""
    with tempfile.TemporaryDirectory(prefix="carcond-startup-", ignore_cleanup_errors=True) as folder:
        report = bench_startup(CHECKOUT, Path(folder), empty_cache=empty_cache, say=_log.print)
    print(json.dumps(report)) if as_json else _print_rows("The first start", [_flat(report)])


@app.command()
def scale(
    tasks: Annotated[int, typer.Option(min=1000, help="number of tasks")] = 100_000,
    labels: Annotated[int, typer.Option(min=1, help="number of labels made one by one")] = 20,
    label_studio_database: DatabaseOption = "",
    data: DataOption = None,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure turns of a Label Studio with many tasks, and Label Studio itself."""
    with _stack(data, models_dir, label_studio_database) as stack:
        report = bench_scale(stack, tasks=tasks, labels=labels, say=_log.print)
    print(json.dumps(report)) if as_json else _print_rows("Many tasks", [_flat(report)])


@app.command()
def serving(as_json: JsonOption = False, models_dir: Annotated[Path | None, typer.Option()] = None) -> None:
    """Measure the backend's routes beside a working worker, its start, and its memory."""
    with _stack(None, models_dir) as stack:
        report = bench_serving(stack)
    print(json.dumps(report)) if as_json else _print_rows("Serving", [_flat(report)])


@app.command()
def rest(as_json: JsonOption = False) -> None:
    """Measure the JSON API: one client, twenty at once, and Label Studio's routes beside them."""
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        report = bench_rest(Path(folder))
    print(json.dumps(report)) if as_json else _print_rows("The JSON API", [_flat(report)])


@app.command()
def refit(as_json: JsonOption = False) -> None:
    """Measure fitting the heads on 1 000 labels of made-up embeddings, calibration included."""
    report = bench_refit()
    print(json.dumps(report)) if as_json else _print_rows("Refit", report["rows"])


SourceOption = Annotated[Source, typer.Option(help="server of the photos: Label Studio, or one of plain files")]
TimedPhotosOption = Annotated[int, typer.Option("--photos", min=1, help="number of photos of 1280x960 pixels")]
TimedViewsOption = Annotated[
    list[str] | None, typer.Option("--views", help="repeat for a row each. Default: 224, and the default views")
]
BackboneOption = Annotated[str, typer.Option(help="timm's name of the network; its weights are random")]
RoundsOption = Annotated[int, typer.Option(min=1, help="number of measurements of each way, which take turns")]


@app.command()
def predict(
    source: SourceOption = "label-studio",
    photos: TimedPhotosOption = 32,
    views: TimedViewsOption = None,
    backbone: BackboneOption = "efficientnet_b4",
    rounds: RoundsOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure cold and warm /predict beside the usual way: each photo by itself, decoded whole, in torch."""
    _time_photos("/predict", bench_predict, source, photos, views, backbone, rounds, as_json=as_json)


@app.command()
def embed(
    source: SourceOption = "label-studio",
    photos: TimedPhotosOption = 160,
    views: TimedViewsOption = None,
    backbone: BackboneOption = "efficientnet_b4",
    rounds: RoundsOption = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure the worker's embedding of new photos beside the usual way, see `predict`."""
    _time_photos("Embedding", bench_embed, source, photos, views, backbone, rounds, as_json=as_json)


def _time_photos(
    title: str,
    bench: Callable[[Workload], dict[str, Any]],
    source: Source,
    photos: int,
    views: list[str] | None,
    backbone: str,
    rounds: int,
    *,
    as_json: bool,
) -> None:
    try:
        each = [parse_views(text) for text in views or ["224", "+".join(map(str, get_settings().views))]]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--views") from None
    with photo_source(source, photos, _log.print) as found:
        rows = [bench(Workload(found, backbone, sides, rounds)) for sides in each]
    print(json.dumps(rows)) if as_json else _print_rows(title, rows)


@app.command()
def pool(
    photos: Annotated[str, typer.Option(help="numbers of photos, comma-separated, ascending")] = "10000,100000",
    dimension: Annotated[int, typer.Option(min=2, help="length of an embedding")] = 1792,
    labels: Annotated[int, typer.Option(min=0, help="number of labels before the first turn")] = 1000,
    turns: Annotated[int, typer.Option(min=1, help="number of measured turns of each size")] = 3,
    database: Annotated[
        str, typer.Option(help="an empty PostgreSQL database, for one number of photos. Default: SQLite")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure what a turn costs by the size of the pool, Label Studio's part left out."""
    sizes = [int(count) for count in photos.split(",")]
    report = bench_pool(sizes, dimension=dimension, labels=labels, turns=turns, database_url=database, say=_log.print)
    if as_json:
        print(json.dumps(report))
        return
    _print_rows("A turn", [*report["rows"], {}])
    if report["exponents"]:
        _print_rows("Growth exponents", [*report["exponents"], {}])


@app.command()
def explain(
    as_json: JsonOption = False,
    models_dir: ModelsOption = None,
) -> None:
    """Measure the overhead of an activation overlay over a prediction, with the encoder in use."""
    settings = get_settings()
    encoder = Encoder.load(find_encoder(models_dir or settings.models_dir), settings.encoder_threads)
    report = bench_explain(encoder)
    if as_json:
        print(json.dumps(report))
        return
    _print_rows("Steps", report.pop("rows"))
    _print_rows("Explain", [report])


@app.command()
def figures(
    labels: Annotated[Path, typer.Option(help="CSV with the columns file and group, and one of classes for each set")],
    photos: Annotated[Path, typer.Option(help="folder with the photos")],
    columns: Annotated[str, typer.Option(help="comma-separated columns, each a labelled set")] = "damage",
    seeds: Annotated[
        int, typer.Option(min=2, help="number of replays of each strategy, each on its own test set")
    ] = 10,
    models_dir: ModelsOption = None,
) -> None:
    """Write the tables of docs/simulate.md and docs/calibration.md, as Markdown, from replays on one core."""
    settings = get_settings()
    folder = models_dir or settings.models_dir
    encoder = Encoder.load(find_encoder(folder), settings.encoder_threads)
    rows = read_rows(labels)
    embeddings, unread = embed_rows(
        rows, photos, encoder, folder / "cache", settings.max_photo_pixels, progress=lambda *_: None
    )
    groups = group_rows(rows, photos, settings.max_photo_pixels)
    sets = {}
    for column in columns.split(","):
        roles = Columns({DAMAGE.key: column})
        dataset = load_dataset(rows, roles, embeddings, groups, list(unread), rotate=True)
        sets[column] = replace(dataset, labels={DAMAGE.key: dataset.labels[DAMAGE.key]})
    print(bench_figures(sets, seeds, _log.print))


@app.command()
def views(
    photos: Annotated[Path, typer.Option(help="folder with the photos")],
    labels: Annotated[Path, typer.Option(help="CSV, as for `carcond simulate`")],
    compared: Annotated[list[str] | None, typer.Option("--views", help="repeat; the first is the baseline")] = None,
    columns: Annotated[list[str] | None, typer.Option(help="task=column: column with the labels of the task")] = None,
    where: Annotated[list[str] | None, typer.Option(help="column=value: keep these rows only")] = None,
    source: Annotated[str, typer.Option(help="column of sources, to leave two out. Default: none")] = "",
    counts: Annotated[str, typer.Option("--counts", help="numbers of labels, comma-separated")] = "50,100,200",
    seeds: Annotated[int, typer.Option(min=2, help="number of splits and draws")] = 20,
    models_dir: ModelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what views of a photo bring on labelled photos, and what they cost per photo."""
    settings = get_settings()
    folder = models_dir or settings.models_dir
    encoders = {}
    for name in compared or ["224", "448", "224+448"]:
        try:
            sides = parse_views(name)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--views") from None
        encoders[name] = export_views(
            folder, settings.backbone, settings.backbone_weights, sides, settings.encoder_threads
        )
    milliseconds = time_encoders(encoders)
    table = read_rows(labels, parse_pairs(where or [], allow_no_value=True))
    rows = bench_views(
        encoders,
        table,
        photos,
        folder / "cache",
        stand_ins=parse_pairs(columns or []),
        labels=[int(count) for count in counts.split(",")],
        seeds=seeds,
        source=source,
        say=_log.print,
    )
    if as_json:
        print(json.dumps({"milliseconds": milliseconds, "rows": rows}))
        return
    _print_rows("Macro-F1 in points, and what other views add", rows)
    _print_rows("Milliseconds per photo", [milliseconds])


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
