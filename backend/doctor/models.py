"""Encoders and versions on this machine's disk."""

from collections.abc import Iterator

from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine
from carcond.errors import EncoderError, ModelMirrorError, RegistryError
from carcond.model.encoder import find_encoder
from carcond.model.encoder_card import ONNX_NAME, file_sha256, read_card
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry, pin_words, version_name

NO_MIRROR = Kind(
    "object-store",
    Level.FAULT,
    "Hosts have different versions; the worker's turns fail.",
    "Models cannot be fetched from the object store: {error}",
    "It is where hosts without a common disk get encoders and versions from.",
    "Mend CARCOND_MODELS_URL, or what gives the right to read there.",
)
NO_ENCODER = Kind(
    "no-encoder",
    Level.FAULT,
    "No pre-labels and no version; the worker's log says that there is no encoder.",
    "No encoder can be used: {error}",
    "Photos are embedded with it.",
    "carcond encoder, with CARCOND_MODELS_DIR={models_dir}. For a stack that scripts/up started, load its settings "
    "first: set -a; . .carcond/environment; set +a",
)
FALLBACK = Kind(
    "fallback-encoder",
    Level.WARNING,
    "Accuracy is lower than it could be.",
    "{encoder} is in use, a stand-in for {wanted}: {reason}",
    "The stand-in is smaller, and its embeddings are worse.",
    "Where the hub can be reached: carcond encoder. Or with a weights file, in the "
    "settings with which the stack is started: CARCOND_BACKBONE_WEIGHTS=FILE",
)
BROKEN = Kind(
    "encoder-broken",
    Level.FAULT,
    "No pre-labels for new photos; the worker's log says that the encoder is damaged.",
    "{path} is not the file that its card describes.",
    "Photos are embedded with it.",
    "rm -r {directory} && carcond encoder",
)
BROKEN_VERSION = Kind(
    "version-broken",
    Level.WARNING,
    "An older version than the promoted one serves, or none.",
    "{promoted}, which was promoted, cannot be read, and {serving} serves instead: {error}. Its files are in "
    "{directory}",
    "Files were damaged or lost after it was written; what it had learnt is not used.",
    "Put its files back from a backup. Without one, the next labels make a new version; or choose another one: "
    "carcond versions list --project {project}, and carcond versions promote VERSION --project {project} --why "
    '"the files of {promoted} are damaged"',
)
REFUSED = Kind(
    "versions-refused",
    Level.FAULT,
    "The version does not move, though labels are learnt.",
    "The gate refused the {count} newest versions; {serving} serves. Of the newest: {reason}",
    "Each was worse on the hold-out than the one that serves: new labels contradict the old ones, or the old "
    "version was lucky.",
    "Look for wrong labels: carcond review --project {project}. See the newest: "
    "carcond versions show {newest} --project {project}. If you trust it: "
    'carcond versions promote {newest} --project {project} --why "..."',
)

MANY_REFUSALS = 5


def check_object_store(whole: Examination) -> Iterator[Finding]:
    """Check that models can be fetched; other checks then use the newest ones."""
    if not whole.settings.models_url:
        yield fine("none: hosts share a disk")
        return
    projects = whole.services.store.project_ids()
    try:
        for project in projects:
            whole.services.pull_models(project)
    except ModelMirrorError as error:
        yield NO_MIRROR.found(error=error)
    else:
        yield fine("models are fetched")


def check_encoder(whole: Examination) -> Iterator[Finding]:
    """Check that the encoder exists, is undamaged, and is the configured one."""
    models_dir = whole.settings.models_dir
    try:
        directory = find_encoder(models_dir)
        card = read_card(directory)
        found = file_sha256(directory / ONNX_NAME)
    except EncoderError as error:
        yield NO_ENCODER.found(error=error, models_dir=models_dir)
        return
    if found != card.onnx_sha256:
        yield BROKEN.found(path=directory / ONNX_NAME, directory=directory)
    elif card.fallback_reason:
        yield FALLBACK.found(encoder=card.encoder_id, wanted=card.request.backbone, reason=card.fallback_reason)
    else:
        yield fine(card.encoder_id)


def check_version(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the promoted version can be read. The last good one serves where it cannot."""
    registry = project.whole.services.registry(project.id)
    promoted = registry.served()[:1]
    if not promoted:
        yield fine("no version yet")
        return
    (number,) = promoted
    try:
        registry.load(number)
    except RegistryError as error:
        serving = registry.current()
        yield BROKEN_VERSION.found(
            project=project.id,
            promoted=version_name(number),
            serving=serving.name if serving else "none",
            error=error,
            directory=registry.root / "versions" / f"{number:04d}",
        )
    else:
        pin = registry.pin()
        yield fine(f"{version_name(number)} serves; {pin_words(pin)}" if pin else version_name(number))


def check_gate(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the gate has not refused many versions in a row."""
    registry = project.whole.services.registry(project.id)
    serving = registry.current()
    refused = _refused_in_a_row(registry)
    if refused < MANY_REFUSALS:
        yield fine(serving.name if serving else "no version yet")
        return
    newest = registry.numbers()[-1]
    yield REFUSED.found(
        project=project.id,
        count=refused,
        serving=serving.name if serving else "none",
        newest=newest,
        reason=_reason(registry, newest),
    )


def _refused_in_a_row(registry: Registry) -> int:
    """Number of the newest versions that the gate refused in a row."""
    refused = 0
    for number in reversed(registry.numbers()):
        if not VersionCard.read(registry.card(number)).is_refused:
            break
        refused += 1
    return refused


def _reason(registry: Registry, number: int) -> str:
    return VersionCard.read(registry.card(number)).reason or f"{version_name(number)} gives no reason"
