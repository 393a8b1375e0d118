"""Choice of the encoder that a project's versions are built on, and of the candidate that may take over.

A version is built on the encoder of the version that serves, so a rollback brings the old encoder back for good.
Another encoder takes over by one trial: it embeds the whole pool, heads are fitted on these embeddings, and the gate
compares them with the serving version. There are three candidates: the serving encoder quantized, the encoder that was
fine-tuned last on the project's labels, and the one that `carcond encoder` has put in use for all projects.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from backend.loop.waiting_photos import unseen_photos
from backend.services import Services
from carcond.errors import EncoderError, RegistryError
from carcond.model.encoder import encoder_directory, list_encoders
from carcond.model.encoder_card import EncoderCard, Tuning, read_card
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry, Version, version_name

logger = logging.getLogger(__name__)


def tuned_encoders(services: Services, project_id: int) -> list[EncoderCard]:
    """Encoders that were fine-tuned on a project's labels, the oldest first; their quantized copies are left out."""
    cards = list_encoders(services.settings.models_dir)
    return [card for card in cards if card.tuning and card.tuning.project == project_id and not card.quantization]


def quantized_encoders(services: Services, project_id: int) -> list[EncoderCard]:
    """Encoders that were quantized for a project, the oldest first."""
    cards = list_encoders(services.settings.models_dir)
    return [card for card in cards if card.quantization and card.quantization.project == project_id]


def labels_learnt(services: Services, project_id: int) -> int:
    """Number of a project's labelled photos when an encoder was last fine-tuned on them; 0 without one."""
    return max((card.tuning.labels for card in tuned_encoders(services, project_id) if card.tuning), default=0)


def tuning_of(services: Services, project_id: int, encoder_id: str) -> Tuning | None:
    """Record of an encoder's fine-tuning on a project's labels; None when there was none, or the encoder is gone."""
    try:
        tuning = read_card(encoder_directory(services.settings.models_dir, encoder_id)).tuning
    except EncoderError:
        return None
    return tuning if tuning and tuning.project == project_id else None


def candidate_encoder(services: Services, project_id: int, serving: Version | None) -> str:
    """The encoder whose trial is due; empty when there is none.

    Args:
        services: of this process.
        project_id: of the loop.
        serving: the serving version, None before the first: the encoder in use for all projects needs no trial then.
    """
    if serving is None:
        return ""
    tuned, quantized = tuned_encoders(services, project_id), quantized_encoders(services, project_id)
    bases = {card.encoder_id: card.quantization.base for card in quantized if card.quantization}
    candidates = [each for each, base in bases.items() if base == serving.heads.encoder_id][-1:]
    candidates += [tuned[-1].encoder_id] if tuned else []
    with suppress(EncoderError):  # the one in use for all is gone: the serving version has its own
        candidates.append(services.encoder_id())
    known = {serving.heads.encoder_id, bases.get(serving.heads.encoder_id)}  # it may have been quantized from another
    tuning = tuning_of(services, project_id, serving.heads.encoder_id)
    if tuning:
        known.add(tuning.base)  # the serving encoder was fine-tuned from it
    registry = services.registry(project_id)
    try:
        untried = [each for each in candidates if each not in known and not _was_tried(registry, each)]
    except RegistryError as error:  # the version that serves is not to be held up by that
        logger.error("project %d: no other encoder is tried: %s", project_id, error)
        return ""
    return untried[0] if untried else ""


def trial(services: Services, project_id: int, encoder_id: str) -> dict[str, Any]:
    """Outcome of an encoder's trial, JSON-ready.

    Returns:
        `encoder_id`; `verdict`: "accepted", "refused", or "waits" before its trial; `version`: name of the first one
        that was built on it, None before the trial; `reason`: the gate's; `photos_left`: photos that it has yet to
        embed before its trial.
    """
    built = list(_cards_of(services.registry(project_id), encoder_id))
    if not built:
        left = unseen_photos(services.store, project_id, encoder_id)
        return {"encoder_id": encoder_id, "verdict": "waits", "version": None, "reason": "", "photos_left": left}
    number, card = built[-1]
    return {
        "encoder_id": encoder_id,
        "verdict": "refused" if card.is_refused else "accepted",
        "version": version_name(number),
        "reason": card.reason,
        "photos_left": 0,
    }


def _was_tried(registry: Registry, encoder_id: str) -> bool:
    """True if a version built on it was refused, or has served.

    One that was written by a worker that died before it could serve is tried again.
    """
    served = {number for each in registry.promotions() for number in (each.before, each.version)}
    return any(number in served or card.is_refused for number, card in _cards_of(registry, encoder_id))


def _cards_of(registry: Registry, encoder_id: str) -> Iterator[tuple[int, VersionCard]]:
    """Number and card of the versions built on an encoder, the newest first; broken ones are left out."""
    for number in reversed(registry.numbers()):
        try:
            card = registry.card(number)
        except RegistryError:
            continue
        if card.get("encoder_id") == encoder_id:
            yield number, VersionCard.read(card)
