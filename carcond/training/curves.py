"""Curves of a training: loss and accuracy by epoch, as a plot and in TensorBoard's format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from carcond.errors import TrainingError
from carcond.training.history import Epoch, best_epoch


def save_training_curves(history: Sequence[Epoch], path: Path) -> None:
    """Plot the loss, the accuracy of each task, and the share of photos with all answers right, as PNG.

    Args:
        history: of at least one epoch.
        path: of the picture.
    """
    # A Figure of its own needs no display.
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    curves = curve_points(history)
    for ax, part in zip(axes, ("loss", "accuracy", "combined"), strict=True):
        colours: dict[str, str] = {}  # the two splits of a task share one
        for name in sorted(name for name in curves if name.startswith(part)):
            what, _, side = name.removeprefix(part).strip("/").rpartition("/")
            epochs, values = zip(*curves[name], strict=True)
            colour = colours.setdefault(what, f"C{len(colours)}")
            style = "--" if side == "train" else "-"
            ax.plot(epochs, values, style, color=colour, label=f"{what} {side}".strip(), linewidth=1.5)
        ax.axvline(best_epoch(history), color="grey", linestyle=":", linewidth=1, label="best epoch")
        ax.set(title="all tasks right together" if part == "combined" else part, xlabel="epoch", ylabel=part)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def curve_points(history: Sequence[Epoch]) -> dict[str, list[tuple[int, float]]]:
    """Name of each curve, for example ``accuracy/damage/validation``, -> its epochs and values."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for epoch in history:
        for side, measured in (("train", epoch.train), ("validation", epoch.validation)):
            if measured is None:
                continue
            values: dict[str, float | None] = {"loss": measured.loss, "combined": measured.combined}
            values |= {f"accuracy/{task}": value for task, value in measured.accuracy.items()}
            for name, value in values.items():
                if value is not None:
                    curves.setdefault(f"{name}/{side}", []).append((epoch.number, value))
    return curves


class TensorBoardCurves:
    """The curves as event files for TensorBoard, one directory a run."""

    def __init__(self, directory: Path) -> None:
        """Start from the first epoch: the events of a killed run are written again from its history.

        Raises:
            TrainingError: the package that writes the format is not installed.
        """
        try:
            from tensorboardX import SummaryWriter  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise TrainingError("TensorBoard's format needs a package: pip install tensorboardX") from error
        for file in directory.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer: Any = SummaryWriter(str(directory))
        self._written = 0

    def write(self, history: Sequence[Epoch]) -> None:
        """Add the epochs that are new."""
        for name, points in curve_points(history[self._written :]).items():
            for number, value in points:
                self._writer.add_scalar(name, value, number)
        self._written = len(history)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
