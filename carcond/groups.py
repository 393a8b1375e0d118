"""Groups of near-duplicate photos, by perceptual hash: a group stays on one side of the split."""

from collections.abc import Sequence

import numpy as np

MAX_DISTANCE = 6
"""Photos whose 64-bit hashes differ in at most this many bits are near-duplicates.

Rescaled and recompressed photos differ in 4 bits at most; from 8 bits on, different cars in the same pose meet.
"""


def assign_groups(new: Sequence[int], known: Sequence[int], known_groups: Sequence[int]) -> list[int]:
    """Give each new photo the group of its nearest near-duplicate, or a group of its own.

    Photos are taken in order: one that lies between two groups joins the nearer, and does not unite them.

    Args:
        new: 64-bit hashes of photos without a group.
        known: hashes of photos with a group.
        known_groups: the groups of `known`.

    Returns:
        Group numbers of `new`. Groups once given never change.
    """
    hashes = np.array([*known, *new], dtype=np.uint64)
    groups = np.array([*known_groups, *[-1] * len(new)], dtype=np.int64)
    unused = int(groups.max(initial=0)) + 1
    for position in range(len(known), len(hashes)):
        distances = np.bitwise_count(hashes[:position] ^ hashes[position])
        nearest = int(distances.argmin()) if position else -1
        if nearest >= 0 and distances[nearest] <= MAX_DISTANCE:
            groups[position] = groups[nearest]
        else:
            groups[position] = unused
            unused += 1
    return [int(group) for group in groups[len(known) :]]
