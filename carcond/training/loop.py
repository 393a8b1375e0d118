"""The training of a network: epochs of batches, a validation after each, and a checkpoint.

Accelerate moves it to the GPU when there is one, and shares each batch among the processes of a `torchrun`. The batches
and their photos' views depend on the seed and the epoch only, so the number of processes changes no more than rounding
does; a killed run resumes from the last checkpoint, with the same result.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined] # it is what timm's documents name
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor
from torch.optim import AdamW

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.errors import TrainingError
from carcond.training.checkpoint import Checkpoint, Checkpoints, Weights
from carcond.training.frozen_stages import freeze_statistics
from carcond.training.history import Epoch, Measured, best_epoch, is_exhausted
from carcond.training.inputs import Inputs, batches, epoch_order
from carcond.training.loss import TaskLoss, batch_loss, loss_sums, task_losses
from carcond.training.network import TwoHeadNetwork
from carcond.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

# Learning rate of the first step, as a share of the highest: with 0 the step would have no effect.
_FIRST_RATE = 0.01


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training.

    Attributes:
        step: steps done, of all epochs.
        steps: of all epochs; fewer are taken when the validation loss stops falling.
        history: of the epochs so far.
        seconds_left: estimated; None before the first step.
    """

    step: int
    steps: int
    history: Sequence[Epoch]
    seconds_left: float | None


Watch = Callable[[TrainingProgress], None]
"""Callback after each step and each epoch. An exception from it ends the training; the last checkpoint stays."""


@dataclass(frozen=True)
class TrainingData:
    """Inputs and labels that a network is trained and measured on.

    Attributes:
        inputs: of all N photos.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where not labelled.
        train: positions of the photos to train on.
        validation: positions of the photos on which the best epoch is chosen.
    """

    inputs: Inputs
    classes: Mapping[str, IntArray]
    train: IntArray
    validation: IntArray


class TrainingLoop:
    """The training of one network.

    Attributes:
        data: photos and labels.
    """

    def __init__(
        self, network: TwoHeadNetwork, data: TrainingData, settings: TrainingSettings, accelerator: Accelerator
    ) -> None:
        """Prepare network, optimizer and losses.

        Args:
            network: trained in place.
            data: photos and labels.
            settings: how.
            accelerator: from `make_accelerator`.

        Raises:
            TrainingError: the processes cannot share a batch evenly.
        """
        if settings.batch_size % accelerator.num_processes:
            raise TrainingError(
                f"expected a batch_size that {accelerator.num_processes} processes can share evenly, "
                f"got {settings.batch_size}"
            )
        # On a CPU, convolutions of this layout take two thirds of the time.
        self._network = network.to(accelerator.device).to(memory_format=torch.channels_last)
        self.data = data
        self._settings = settings
        self._accelerator = accelerator
        self._targets = {key: torch.from_numpy(indices) for key, indices in data.classes.items()}
        train_classes = {key: indices[data.train] for key, indices in data.classes.items()}
        balanced = settings.class_weights == "balanced"
        self._losses: dict[str, TaskLoss] = task_losses(train_classes, settings.loss_weights, balanced)
        self._optimizer = AdamW(param_groups_weight_decay(network, settings.weight_decay), settings.learning_rate)
        self._epoch_steps = -(-len(data.train) // (settings.batch_size * settings.gradient_accumulation))
        self._steps = self._epoch_steps * settings.epochs
        self._schedule = CosineLRScheduler(
            self._optimizer,
            t_initial=self._steps,
            warmup_t=round(settings.warmup * self._steps),
            warmup_lr_init=_FIRST_RATE * settings.learning_rate,
            t_in_epochs=False,
        )

    def run(self, checkpoints: Checkpoints, watch: Watch) -> list[Epoch]:
        """Train, from the last checkpoint if there is one; at the end the network has the best epoch's weights.

        Args:
            checkpoints: of this run.
            watch: progress callback; only in the main process.
        """
        history, best = self._resume(checkpoints)
        model, optimizer = self._accelerator.prepare(self._network, self._optimizer)
        watcher = _Watcher(watch if self._accelerator.is_main_process else None, self._steps)
        if not history:
            started = time.monotonic()
            history = [Epoch(0, None, self.measure(self.data.validation), 0.0, time.monotonic() - started)]
            best = self._weights()
            self._save(checkpoints, history, best)
            watcher.tell(0, history)
        while history[-1].number < self._settings.epochs and not is_exhausted(history, self._settings.patience):
            history = [*history, self._epoch(history[-1].number + 1, model, optimizer, history, watcher)]
            if best_epoch(history) == history[-1].number:
                best = self._weights()
            self._save(checkpoints, history, best)
            watcher.tell(history[-1].number * self._epoch_steps, history)
        self._network.load_state_dict(best)
        return history

    def measure(self, positions: IntArray) -> Measured:
        """Metrics of the network on photos without augmentation."""
        self._network.eval()
        sums = _Sums(self._losses, self._targets, self._accelerator)
        order = self._own_share(_cut(positions, self._settings.batch_size))
        with torch.inference_mode(), self._accelerator.autocast():
            for inputs, chosen in batches(self.data.inputs, order, None, self._settings.loader_processes):
                sums.add(self._network(self._moved(inputs)), chosen)
        return sums.measured()

    def embeddings(self, positions: IntArray) -> FloatArray:
        """Embeddings ``(P, D)`` of photos without augmentation."""
        self._network.eval()
        rows = np.arange(len(positions))
        order = self._own_share(_cut(rows, self._settings.batch_size))
        found = torch.zeros(len(positions), self._network.dimension, device=self._accelerator.device)
        batch = batches(self.data.inputs, [positions[part] for part in order], None, self._settings.loader_processes)
        with torch.inference_mode():
            for part, (inputs, _) in zip(order, batch, strict=True):
                found[torch.from_numpy(part)] = self._network.encode(self._moved(inputs))[0].float()
        # Each process has filled in its own rows; the others' are zeros.
        return np.asarray(self._accelerator.reduce(found, "sum").cpu().numpy(), dtype=np.float32)

    def _epoch(self, number: int, model: Any, optimizer: Any, history: Sequence[Epoch], watcher: "_Watcher") -> Epoch:
        started = time.monotonic()
        settings, accelerator = self._settings, self._accelerator
        # Dropout draws from these generators; each process draws its own.
        drawn = np.random.SeedSequence([settings.seed, number, accelerator.process_index]).generate_state(1)[0]
        torch.manual_seed(int(drawn))
        self._network.train()
        freeze_statistics(self._network)
        sums = _Sums(self._losses, self._targets, accelerator)
        step = (number - 1) * self._epoch_steps
        order = [self._own_part(batch) for batch in self._order(number)]
        for inputs, chosen in batches(self.data.inputs, order, number, settings.loader_processes):
            self._schedule.step_update(step)
            with accelerator.accumulate(model):
                logits = model(self._moved(inputs))
                targets = sums.add({key: value.detach() for key, value in logits.items()}, chosen)
                accelerator.backward(batch_loss(self._losses, logits, targets, settings.label_smoothing))
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                step += 1
                watcher.tell(step, history)
        rate = float(self._optimizer.param_groups[0]["lr"])
        train = sums.measured()
        validation = self.measure(self.data.validation)
        return Epoch(number, train, validation, rate, time.monotonic() - started)

    def _order(self, number: int) -> list[IntArray]:
        """Positions of each batch of an epoch; the batches of a step follow each other."""
        accumulated = self._settings.gradient_accumulation
        steps = epoch_order(self.data.train, self._settings.batch_size * accumulated, self._settings.seed, number)
        return [batch for step in steps for batch in np.split(step, accumulated)]

    def _moved(self, inputs: Tensor) -> Tensor:
        return inputs.to(self._accelerator.device, memory_format=torch.channels_last)

    def _own_part(self, batch: IntArray) -> IntArray:
        return batch[self._accelerator.process_index :: self._accelerator.num_processes]

    def _own_share(self, order: Sequence[IntArray]) -> Sequence[IntArray]:
        return order[self._accelerator.process_index :: self._accelerator.num_processes]

    def _weights(self) -> Weights:
        return {name: value.detach().cpu().clone() for name, value in self._network.state_dict().items()}

    def _save(self, checkpoints: Checkpoints, history: Sequence[Epoch], best: Weights) -> None:
        if self._accelerator.is_main_process:
            optimizer = {
                number: {name: torch.as_tensor(value) for name, value in state.items()}
                for number, state in self._optimizer.state_dict()["state"].items()
            }
            scaler = self._accelerator.scaler.state_dict() if self._accelerator.scaler else {}
            checkpoints.save(Checkpoint(history, self._weights(), best, optimizer, scaler))
        self._accelerator.wait_for_everyone()

    def _resume(self, checkpoints: Checkpoints) -> tuple[list[Epoch], Weights]:
        checkpoint = checkpoints.load()
        if checkpoint is None:
            return [], {}
        self._network.load_state_dict(checkpoint.network)
        # The groups follow from the settings, and their learning rates from the step.
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": dict(checkpoint.optimizer)})
        if checkpoint.scaler and self._accelerator.scaler:
            self._accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
        return list(checkpoint.history), checkpoint.best


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """Accelerator that moves a training to the GPU, if there is one, and joins the processes of a `torchrun`.

    Raises:
        TrainingError: the settings require a GPU that is missing.
    """
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and settings.mixed_precision == "fp16":
        raise TrainingError("mixed_precision fp16 needs a GPU, and there is none: use no, or bf16")
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation,
    )


def _cut(positions: IntArray, size: int) -> list[IntArray]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


class _Sums:
    """Running sums of losses and right answers, local to this process until `measured` reduces them."""

    def __init__(self, losses: Mapping[str, TaskLoss], targets: Mapping[str, Tensor], accelerator: Accelerator) -> None:
        self._losses = losses
        self._targets = targets
        self._accelerator = accelerator
        # A row a task: loss, class weights, right answers, labels. The last: all answers right, labels of all tasks.
        self._sums = torch.zeros(len(losses) + 1, 4, dtype=torch.float64)

    def add(self, logits: Mapping[str, Tensor], chosen: IntArray) -> dict[str, Tensor]:
        """Add a batch and return its targets, on the device of the logits."""
        where = torch.from_numpy(chosen)
        targets = {key: self._targets[key][where].to(logits[key].device) for key in logits}
        self._sums[:-1, :2] += loss_sums(self._losses, logits, targets).cpu()
        known = torch.stack([targets[key] != UNKNOWN for key in self._losses])
        right = torch.stack([logits[key].argmax(dim=1) == targets[key] for key in self._losses])
        self._sums[:-1, 2] += right.sum(dim=1).cpu()
        self._sums[:-1, 3] += known.sum(dim=1).cpu()
        self._sums[-1, 2] += right.all(dim=0).sum().cpu()
        self._sums[-1, 3] += known.all(dim=0).sum().cpu()
        return targets

    def measured(self) -> Measured:
        """Metrics over all processes."""
        shared = self._accelerator.num_processes > 1  # processes with GPUs add up on them
        total: Any = self._accelerator.reduce(self._sums.to(self._accelerator.device) if shared else self._sums, "sum")
        rows = dict(zip(self._losses, total[:-1].tolist(), strict=True))
        terms = [self._losses[key].weight * row[0] / row[1] for key, row in rows.items() if row[1]]
        *_, all_right, all_known = total[-1].tolist()
        return Measured(
            sum(terms) if terms else None,
            {key: row[2] / row[3] for key, row in rows.items() if row[3]},
            all_right / all_known if all_known and len(rows) > 1 else None,
        )


class _Watcher:
    """Reports the progress of a training, with the remaining time."""

    def __init__(self, watch: Watch | None, steps: int) -> None:
        self._watch = watch
        self._steps = steps
        self._first: tuple[int, float] | None = None

    def tell(self, step: int, history: Sequence[Epoch]) -> None:
        if self._watch is None:
            return
        now = time.monotonic()
        self._first = self._first or (step, now)
        done, spent = step - self._first[0], now - self._first[1]
        left = spent / done * (self._steps - step) if done else None
        self._watch(TrainingProgress(step, self._steps, history, left))
