"""A training outside the loop: from a labelled set to an output folder, resumable by repeating it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carcond.model.encoder_card import ONE_VIEW
from carcond.training.curves import TensorBoardCurves, save_training_curves
from carcond.training.data_report import TrainingReport
from carcond.training.dataset import TrainingSet
from carcond.training.finetune import Progress, finetune
from carcond.training.history import Epoch
from carcond.training.loop import TrainingProgress, Watch
from carcond.training.output import TrainingOutput
from carcond.training.pretrained_weights import load_backbone_or_fallback
from carcond.training.settings import TrainingSettings


@dataclass(frozen=True)
class OfflineTraining:
    """Data, settings and output folder of one training.

    Attributes:
        training: photos and labels.
        report: labels and photos that are used or left out.
        settings: how.
        backbone: timm's name of the network.
        weights: initial weights, see `carcond.training.pretrained_weights.load_backbone`.
        output: folder for the result, see `carcond.training.output`.
        max_pixels: limit of width x height of a photo.
        views: sides of the views of a photo, in pixels.
        tensorboard: also write the curves in TensorBoard's format.
        main: True in the process that logs and writes for all of a `torchrun`.
    """

    training: TrainingSet
    report: TrainingReport
    settings: TrainingSettings
    backbone: str
    weights: str
    output: Path
    max_pixels: int
    views: tuple[int, ...] = ONE_VIEW
    tensorboard: bool = False
    main: bool = True

    def run(self, watch: Watch, progress: Progress) -> dict[str, Any]:
        """Train, resume a killed run, or return the report of a complete one.

        Args:
            watch: progress callback of the training.
            progress: called with the number of photos encoded, before and after the training.

        Returns:
            JSON-ready, as `train_report.json`: the data's report, the settings, the history by epoch, and the facts of
            `carcond.training.finetune.finetune`. In processes that are not the main one it is empty.

        Raises:
            TrainingError: settings, labels or an earlier run in the output folder do not allow it.
            EncoderError: the network is unknown or its weights cannot be loaded.
        """
        output = TrainingOutput(self.output)
        backbone = load_backbone_or_fallback(self.backbone, self.weights, self.views)
        if self.main:
            how = self.settings.model_dump(exclude={"loader_processes"})
            start = {
                "backbone": backbone.name,
                "views": backbone.views,
                "weights": backbone.weights_source,
                "photos": self.training.fingerprint(),
            }
            output.begin({"settings": how, **start})
            if (finished := output.finished()) is not None:
                return finished
            output.work_dir.mkdir(exist_ok=True)
            # Readable during the training, and when the labels do not allow one.
            output.write_report(self.report.as_json())
        curves = _Curves(output.directory, self.tensorboard) if self.main else None

        def tell(state: TrainingProgress) -> None:
            if curves:
                curves.draw(state.history)
            watch(state)

        made = finetune(
            self.training,
            backbone,
            self.settings,
            output.directory,
            output.work_dir,
            max_pixels=self.max_pixels,
            watch=tell,
            progress=progress,
        )
        if made is None:
            return {}
        history = [epoch.as_json() for epoch in made.history]
        facts = {**made.facts, "settings": self.settings.model_dump(), "history": history}
        report = {**self.report.as_json(), **facts}
        output.write(made, report)
        return report


class _Curves:
    """The curves, plotted again after each epoch."""

    def __init__(self, directory: Path, tensorboard: bool) -> None:
        self._picture = directory / "curves.png"
        self._board = TensorBoardCurves(directory / "tensorboard") if tensorboard else None
        self._drawn = 0

    def draw(self, history: Sequence[Epoch]) -> None:
        if len(history) == self._drawn:
            return
        save_training_curves(history, self._picture)
        if self._board:
            self._board.write(history)
        self._drawn = len(history)
