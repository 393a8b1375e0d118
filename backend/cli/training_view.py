"""Terminal output of a training: a bar with the time left, a line an epoch, and the outcome."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:  # it imports torch
    from carcond.training.history import Epoch
    from carcond.training.loop import TrainingProgress, Watch


@contextmanager
def training_bars(epochs: int) -> "Iterator[tuple[Watch, Callable[[int, int], None]]]":
    """Progress on standard error.

    Args:
        epochs: of the training.

    Yields:
        Progress callback of the training, and callback for the numbers of encoded and of all photos.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        training = bars.add_task("training", total=None, left="", visible=False)
        encoding = bars.add_task("encoding photos", total=None, left="", visible=False)
        told: set[int] = set()

        def watch(progress: "TrainingProgress") -> None:
            for epoch in progress.history:
                if epoch.number not in told:
                    told.add(epoch.number)
                    bars.console.print(epoch_line(epoch, epochs), highlight=False, soft_wrap=True)
            left = "" if progress.seconds_left is None else f"{timedelta(seconds=round(progress.seconds_left))} left"
            bars.update(training, completed=progress.step, total=progress.steps, left=left, visible=True)

        def encode(done: int, total: int) -> None:
            bars.update(encoding, completed=done, total=total, visible=done < total)

        yield watch, encode


def epoch_line(epoch: "Epoch", epochs: int) -> str:
    """Figures of an epoch, in one line."""
    losses = {"train loss": epoch.train.loss if epoch.train else None, "validation loss": epoch.validation.loss}
    figures = [f"{name} {value:.4f}" for name, value in losses.items() if value is not None]
    figures += [f"{task} {value:.3f}" for task, value in epoch.validation.accuracy.items()]
    return f"epoch {epoch.number}/{epochs}: {', '.join(figures)} ({epoch.seconds:.0f} s)"


def outcome_table(facts: Mapping[str, Any]) -> str:
    """The new encoder beside the frozen one, as text; see `carcond.training.finetune.finetune`."""
    side = {"holdout": "hold-out", "validation": "validation"}[facts["measured_on"]]
    title = f"{facts['encoder_id']}: best epoch {facts['best_epoch']} of {facts['epochs']}, on the {side} photos"
    table = Table("task", "photos", "figure", "frozen", "fine-tuned", "difference (90 %)", title=title)
    for task, compared in facts["against_frozen"].items():
        for figure in ("macro_f1", "worst_recall", "probability_score"):
            each = compared[figure]
            difference = f"{each['difference']:+.3f} ({each['low']:+.3f} to {each['high']:+.3f})"
            shown = (f"{each['serving']:.3f}", f"{each['candidate']:.3f}", difference)
            table.add_row(task, str(compared["photos"]), figure.replace("_", " "), *shown)
    console = Console(file=StringIO(), width=120)
    console.print(table)
    return str(console.file.getvalue())  # type: ignore[attr-defined] # it is the StringIO above
