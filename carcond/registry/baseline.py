"""Baseline version of the gate, compared besides the serving one so that small regressions do not add up."""

import logging

from carcond.errors import RegistryError
from carcond.model.version_card import VersionCard
from carcond.registry.promotions import LOOP
from carcond.registry.registry import Registry, Version, version_name

logger = logging.getLogger(__name__)


def find_baseline(registry: Registry, labels: int) -> Version | None:
    """The latest version that served with half of a candidate's labels or fewer, and led to the serving one.

    Each of many small regressions may pass the gate. Over twice the labels they add up, and with twice the labels a
    candidate should be better. It is not the best version that served: the maximum of many on the same hold-out is
    biased upwards.

    For pruned versions, the milestone before is used, see `carcond.registry.milestones`.

    A manual promotion resets the search: versions before that one are not considered.

    Args:
        registry: of the project.
        labels: number of photos that the candidate was fitted on.

    Returns:
        None when there is no such version, or it is the serving one.

    Raises:
        RegistryError: the record of promotions cannot be read.
    """
    chosen = {promotion.version for promotion in registry.promotions() if promotion.who != LOOP}
    line = registry.served()
    pruned = registry.pruned(line)
    for number in line:
        try:
            train = None if number in pruned else VersionCard.read(registry.card(number)).labels.train
            if train is not None and train * 2 <= labels:
                return registry.load(number) if number != line[0] else None
        except RegistryError as error:
            logger.error("%s is passed over as a baseline: %r", version_name(number), error)
        if number in chosen:
            return None
    return None
