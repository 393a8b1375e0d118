"""Output folder of an offline training: a models directory with the new encoder, and its reports.

- `encoders/<encoder_id>/`, `encoders/current`: the new encoder, in use.
- `cache/`: embeddings of the photos.
- `heads.safetensors`, `card.json`, `labels.jsonl.gz`: as a model version has them.
- `backbone.safetensors`: weights that a later training may start from.
- `run.json`: data and settings of the run; `train_report.json`, `report.html`, `curves.png`: its results.
- `unfinished/`: checkpoints, until the training is complete.
"""

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from carcond.errors import TrainingError
from carcond.files import replace_text
from carcond.model.encoder import use_encoder
from carcond.model.version_card import VersionCard
from carcond.reports.card_page import card_page
from carcond.training.curves import save_training_curves
from carcond.training.finetune import FineTuned


class TrainingOutput:
    """The output of one run.

    Attributes:
        directory: its path; `CARCOND_MODELS_DIR` may name it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def work_dir(self) -> Path:
        """Folder of the files that are needed until the run is complete."""
        return self.directory / "unfinished"

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Record data and settings of the run, or check that they are those of the run begun here.

        Args:
            identity: JSON-ready; all that the result depends on.

        Raises:
            TrainingError: something else was begun here.
        """
        path = self.directory / "run.json"
        wanted = json.loads(json.dumps(identity))
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(wanted, indent=2) + "\n")
            return
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainingError(f"{path} is damaged ({error}): remove {self.directory}, or choose another") from error
        if begun != wanted:
            raise TrainingError(
                f"{self.directory} holds a training with other {', '.join(_differences(begun, wanted))}: "
                "choose another output folder, or remove it to start again"
            )

    def finished(self) -> dict[str, Any] | None:
        """The report of the run, if it is complete."""
        path = self.directory / "train_report.json"
        if self.work_dir.exists() or not path.exists():
            return None
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return report

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write `train_report.json`."""
        replace_text(self.directory / "train_report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")

    def write(self, made: FineTuned, report: Mapping[str, Any]) -> None:
        """Write all results, and remove the temporary files.

        Args:
            made: the result; its encoder is in this directory already.
            report: JSON-ready, for `train_report.json`.

        Raises:
            TrainingError: the disk is full or not writable; the same training writes it again.
        """
        card = VersionCard(version=made.encoder_id, **made.card).facts()
        try:
            made.heads.save(self.directory / "heads.safetensors")
            weights = {name: value.contiguous() for name, value in made.weights.items()}
            save_file(weights, self.directory / "backbone.safetensors")
            with gzip.open(self.directory / "labels.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made.labels)
            replace_text(self.directory / "card.json", json.dumps(card, indent=2) + "\n")
            replace_text(self.directory / "report.html", card_page(card))
            save_training_curves(made.history, self.directory / "curves.png")
            use_encoder(self.directory, made.encoder_id)
            self.write_report(report)
            shutil.rmtree(self.work_dir)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"the result cannot be written to {self.directory}: {error}") from error


def _differences(begun: Any, wanted: Any, name: str = "") -> list[str]:
    """Names of the parts in which two JSON values differ."""
    if isinstance(begun, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys([*begun, *wanted])
        return [
            found
            for key in keys
            if begun.get(key) != wanted.get(key)
            for found in _differences(begun.get(key), wanted.get(key), f"{name}.{key}" if name else key)
        ]
    return [name]
