"""Inputs of the trained part of a network: pixels of photos, or cached activations of frozen stages."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from carcond.arrays import IntArray
from carcond.data.images import InputSpec, decode_photo, to_pixels
from carcond.training.augmentation import TrainingTransform
from carcond.training.frozen_stages import map_shape
from carcond.training.settings import Augmentation

Progress = Callable[[int, int], None]
"""Progress callback, called with the number done and the total."""

_STAGE_BATCH = 8


class Inputs(Protocol):
    """Inputs of the trained part of a network, for N photos."""

    def plain(self, position: int) -> Tensor:
        """Input without augmentation, as in serving."""

    def varied(self, position: int, epoch: int) -> Tensor:
        """Augmented input of an epoch; the same arguments give the same bits."""


class PhotoInputs:
    """Pixels (3, size, size), read from photo files each time."""

    def __init__(
        self, files: Sequence[Path], spec: InputSpec, augmentation: Augmentation, max_pixels: int, seed: int
    ) -> None:
        self._files = files
        self._spec = spec
        self._transform = TrainingTransform(spec, augmentation)
        self._max_pixels = max_pixels
        self._seed = seed

    def __len__(self) -> int:
        return len(self._files)

    @property
    def size(self) -> int:
        """Side of the square."""
        return self._spec.size

    def plain(self, position: int) -> Tensor:
        """Pixels of a photo without augmentation."""
        return torch.from_numpy(to_pixels(self._image(position), self._spec))

    def varied(self, position: int, epoch: int) -> Tensor:
        """Pixels of a photo, augmented."""
        drawn = np.random.SeedSequence([self._seed, epoch, position]).generate_state(1)[0]
        return self._transform(self._image(position), int(drawn))

    def _image(self, position: int) -> Image.Image:
        data = self._files[position].read_bytes()
        return decode_photo(data, target=self._spec.size, max_pixels=self._max_pixels)


class KeptActivations:
    """Activations of frozen stages, cached in a file: of all photos, and of augmented views of the training photos."""

    def __init__(self, kept: NDArray[np.float32], count: int, train: IntArray) -> None:
        # A row for each of `count` photos without augmentation, then one for each training photo, view by view.
        self._kept = kept
        self._count = count
        self._train = len(train)
        self._rank = {int(position): rank for rank, position in enumerate(train)}

    @classmethod
    def make(
        cls, path: Path, stages: nn.Module, photos: PhotoInputs, train: IntArray, views: int, *, progress: Progress
    ) -> Self:
        """Read the cached activations, or pass the photos through the stages.

        Args:
            path: of the file; it is there only when it is complete.
            stages: from `carcond.training.frozen_stages.split_backbone`.
            photos: their inputs.
            train: positions of the photos to train on.
            views: number of augmented views of each of these.
            progress: called with the number of rows done.
        """
        if not path.exists():
            unfinished = path.with_name(f".{path.name}")
            wanted = [(position, 0) for position in range(len(photos))]
            wanted += [(int(position), view) for view in range(1, views + 1) for position in train]
            shape = (len(wanted), *map_shape(stages, photos.size))
            kept = open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
            for start in range(0, len(wanted), _STAGE_BATCH):
                batch = wanted[start : start + _STAGE_BATCH]
                pixels = [photos.varied(i, view) if view else photos.plain(i) for i, view in batch]
                with torch.inference_mode():
                    kept[start : start + len(batch)] = stages(torch.stack(pixels)).numpy()
                progress(start + len(batch), len(wanted))
            kept.flush()
            unfinished.rename(path)
        return cls(np.load(path, mmap_mode="r"), len(photos), train)

    def plain(self, position: int) -> Tensor:
        """Activations of a photo without augmentation."""
        return torch.tensor(self._kept[position])

    def varied(self, position: int, epoch: int) -> Tensor:
        """Activations of an augmented view of a training photo: another one each epoch, until all were used."""
        views = (len(self._kept) - self._count) // self._train
        view = (epoch - 1) % views
        return torch.tensor(self._kept[self._count + view * self._train + self._rank[position]])


class _View(Dataset[tuple[Tensor, int]]):
    def __init__(self, inputs: Inputs, epoch: int | None) -> None:
        self._inputs = inputs
        self._epoch = epoch

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        if self._epoch is None:
            return self._inputs.plain(position), position
        return self._inputs.varied(position, self._epoch), position


def batches(
    inputs: Inputs, order: Sequence[IntArray], epoch: int | None, loader_processes: int = 0
) -> Iterator[tuple[Tensor, IntArray]]:
    """Inputs (B, ...) and positions (B,) of each batch.

    Args:
        inputs: of all photos.
        order: positions of each batch.
        epoch: see `Inputs.varied`; None for plain inputs.
        loader_processes: that prepare batches ahead.
    """
    sampler = [[int(position) for position in batch] for batch in order]
    # Spawned, not forked: threads of this process, such as torch's, would be missing in the child.
    context = "spawn" if loader_processes else None
    loader = DataLoader(
        _View(inputs, epoch), batch_sampler=sampler, num_workers=loader_processes, multiprocessing_context=context
    )
    for tensors, positions in loader:
        yield tensors, positions.numpy()


def epoch_order(positions: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """Positions of each batch of an epoch, shuffled by seed and epoch only.

    The last batch is filled from the first, so that all have `batch_size`.

    Args:
        positions: of the photos to train on.
        batch_size: photos a batch.
        seed: of the training.
        epoch: 1 for the first.
    """
    drawn = np.random.default_rng([seed, epoch]).permutation(positions)
    count = -(-len(drawn) // batch_size)
    return list(np.resize(drawn, (count, batch_size)))
