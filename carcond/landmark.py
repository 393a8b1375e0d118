"""The version that a candidate is compared with besides the serving one, so that small steps down do not add up."""

import logging

from carcond.errors import RegistryError
from carcond.promotions import LOOP
from carcond.registry import Registry, Version, version_name

logger = logging.getLogger(__name__)


def find_landmark(registry: Registry, labels: int) -> Version | None:
    """The latest version that served with half of a candidate's labels or fewer, and led to the serving one.

    Each of many small steps down may pass the gate. Over twice the labels they add up, and over twice the labels a
    candidate should be better. It is not the best version that served: the luckiest of many on the same hold-out
    would be too high a bar.

    A person who makes a version serve begins anew: versions before that one are not looked at.

    Args:
        registry: of the project.
        labels: photos that the candidate was fitted on.

    Returns:
        None when there is no such version, or it is the serving one.

    Raises:
        RegistryError: the record of promotions cannot be read.
    """
    chosen = {promotion.version for promotion in registry.promotions() if promotion.who != LOOP}
    line = registry.served()
    for number in line:
        try:
            if registry.card(number)["labels"]["train"] * 2 <= labels:
                return registry.load(number) if number != line[0] else None
        except (RegistryError, KeyError, TypeError) as error:
            logger.error("%s is passed over as a landmark: %r", version_name(number), error)
        if number in chosen:
            return None
    return None
