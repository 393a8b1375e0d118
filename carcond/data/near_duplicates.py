"""Groups of photos of one car and of near-duplicates: a group stays in one split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_DISTANCE = 6
"""Photos whose 64-bit hashes differ in at most this many bits are near-duplicates.

Rescaled and recompressed photos differ in 4 bits at most; from 8 bits on, different cars in the same pose meet.
"""


@dataclass(frozen=True)
class Likeness:
    """Features by which photos are grouped.

    Attributes:
        phash: 64-bit perceptual hash.
        car: name of the car, None when not known.
    """

    phash: int
    car: str | None = None


def assign_groups(new: Sequence[Likeness], known: Sequence[Likeness], known_groups: Sequence[int]) -> list[int]:
    """Give each new photo the group of its car, else of its nearest near-duplicate, else one of its own.

    Photos are taken in order: one that lies between two groups joins the nearer, and does not unite them.

    Args:
        new: photos without a group.
        known: photos with a group.
        known_groups: the groups of `known`.

    Returns:
        Group numbers of `new`. Groups once given never change.
    """
    photos = [*known, *new]
    hashes = np.array([photo.phash for photo in photos], dtype=np.uint64)
    groups = np.array([*known_groups, *[-1] * len(new)], dtype=np.int64)
    unused = int(groups.max(initial=0)) + 1
    group_of_car = {photo.car: int(group) for photo, group in zip(known, known_groups, strict=True) if photo.car}
    for position in range(len(known), len(hashes)):
        distances = np.bitwise_count(hashes[:position] ^ hashes[position])
        nearest = int(distances.argmin()) if position else -1
        car = photos[position].car
        if car in group_of_car:
            groups[position] = group_of_car[car]
        elif nearest >= 0 and distances[nearest] <= MAX_DISTANCE:
            groups[position] = groups[nearest]
        else:
            groups[position] = unused
            unused += 1
        if car:
            group_of_car.setdefault(car, int(groups[position]))
    return [int(group) for group in groups[len(known) :]]
