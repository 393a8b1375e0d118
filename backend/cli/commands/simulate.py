"""`carcond simulate`: number of labels that each strategy needs."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.pairs import parse_pairs
from backend.cli.simulation_view import progress_bar, simulation_table
from backend.loop.predictions import queue_settings
from carcond.analysis.live_replay import LiveSettings
from carcond.analysis.replay_set import Columns, embed_rows, group_rows, load_dataset
from carcond.analysis.simulate import simulate as run
from carcond.analysis.simulation_report import report
from carcond.data.label_table import read_rows
from carcond.model.encoder import Encoder, find_encoder
from carcond.query.strategy import LIVE, parse_strategies
from carcond.reports.curve_plot import check_can_plot, save_plot
from carcond.settings import get_settings

_COMPARED = "random,margin,entropy,badge,live"
# Another name of the strategy that the service uses.
_DEFAULT = "default"


def simulate(
    labels: Annotated[Path, typer.Option(help="a CSV file, or an export of Label Studio; see docs/simulate.md")],
    photos: Annotated[Path, typer.Option(help="folder of the photos")],
    strategies: Annotated[str, typer.Option(help="comma-separated names; see carcond/query/strategy.py")] = _COMPARED,
    seeds: Annotated[int, typer.Option(min=2, help="number of replays of each strategy")] = 30,
    columns: Annotated[list[str] | None, typer.Option(help="task=column: column with the labels of the task")] = None,
    where: Annotated[list[str] | None, typer.Option(help="column=value: keep these rows only")] = None,
    by: Annotated[str, typer.Option(help="also measure by the values of this column")] = "",
    publish_every: Annotated[int, typer.Option(min=1, help="number of labels between two versions of `live`")] = 5,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="ignore the column split: each seed has its test set")
    ] = False,
    together: Annotated[bool, typer.Option("--together", help="one queue for all tasks, not one for each")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the curves into this file, as PNG and SVG")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder of cached embeddings")] = None,
    processes: Annotated[int, typer.Option(min=0, help="number of processes; 0: one per core")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Replay a labelled set: how many labels does each strategy need?

    Example: carcond simulate --labels labels.csv --photos photos --strategies random,margin,live --seeds 30
    """
    settings = get_settings()
    named = [LIVE if name.strip() == _DEFAULT else name for name in strategies.split(",")]
    chosen = parse_strategies(",".join(named))
    if plot:
        check_can_plot()
    rows = read_rows(labels, parse_pairs(filter(None, where or []), allow_no_value=True))
    loaded = Encoder.load(find_encoder(settings.models_dir), settings.encoder_threads)
    kept_in = cache or settings.models_dir / "cache"
    with progress_bar("encoding photos") as progress:
        embeddings, unread = embed_rows(rows, photos, loaded, kept_in, settings.max_photo_pixels, progress=progress)
    for reason in unread.values():
        print(f"left out: {reason}", file=sys.stderr)
    roles = Columns(parse_pairs(filter(None, ",".join(columns or []).split(",")), allow_no_value=True), by)
    groups = group_rows(rows, photos, settings.max_photo_pixels)
    dataset = load_dataset(rows, roles, embeddings, groups, list(unread), rotate=rotate)
    live = LiveSettings(queue_settings(settings), publish_every, settings.gate_margin, settings.gate_min_photos)
    with progress_bar("replaying") as progress:
        curves = run([dataset] if together else dataset.by_task(), chosen, seeds, progress, processes, live=live)
    facts = {
        "encoder": loaded.encoder_id,
        "seeds": seeds,
        "test_sets": seeds if dataset.test is None else 1,
        "publish_every": publish_every,
        "left_out": len(unread),
        **report(curves),
    }
    for file in save_plot(facts, plot) if plot else []:
        print(f"wrote {file}", file=sys.stderr)
    print(json.dumps(facts, indent=2) if as_json else simulation_table(facts))
