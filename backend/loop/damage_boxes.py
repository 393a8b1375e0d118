"""Boxes around suspected damage in predictions, where a project's label config has a RectangleLabels tag for them.

A box needs the feature map, which is too large to store for a whole pool: the photo is fetched and encoded again.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend.label_studio.client import PredictionDraft
from backend.label_studio.label_config import LabelBinding
from backend.services import Services
from carcond.errors import CarcondError, PhotoFetchError
from carcond.model.damage_box import Box
from carcond.model.explain import explain_photo
from carcond.model.heads import Heads
from carcond.taxonomy import DAMAGE, DAMAGED

logger = logging.getLogger(__name__)


class DamageBoxes:
    """Draws boxes for one version and label config. Threads may share it."""

    def __init__(self, services: Services, binding: LabelBinding, heads: Heads | None) -> None:
        self._services = services
        self._binding = binding
        self._heads = heads if binding.boxes else None

    def drawn(self, draft: PredictionDraft, urls: Mapping[int, str]) -> PredictionDraft:
        """Return the draft with its damage box, if any.

        Args:
            draft: to be written to Label Studio.
            urls: task id -> address of the photo.
        """
        return replace(draft, result=self.with_box(draft.result, urls.get(draft.task_id, "")))

    def with_box(self, result: list[dict[str, Any]], url: str) -> list[dict[str, Any]]:
        """Return the regions of a prediction, with a box when they predict damage.

        A photo that cannot be fetched costs the box only, with a line in the log. After one that could not be reached
        no further box is tried: waiting for each photo of a host that is down would hold up the queue.
        """
        heads = self._heads
        if heads is None or self._binding.labels(result).get(DAMAGE.key) != DAMAGED:
            return result
        try:
            box = self._box(url, heads)
        except CarcondError as error:
            logger.warning("no box: %s", error)
            if isinstance(error, PhotoFetchError) and error.transient:
                self._heads = None
            return result
        return [*result, self._binding.box_region(box, _confidence(result, self._binding))] if box else result

    def _box(self, url: str, heads: Heads) -> Box | None:
        encoder = self._services.encoder(heads.encoder_id)
        data = self._services.photos.fetch(url)
        return explain_photo(data, encoder, heads, self._services.settings.max_photo_pixels).suspected_damage


def _confidence(result: list[dict[str, Any]], binding: LabelBinding) -> float:
    tag = binding.choices[DAMAGE.key].from_name
    return next(float(region["score"]) for region in result if region["from_name"] == tag)
