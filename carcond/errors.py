"""Exceptions of carcond.

CarcondError
├── SettingsError          a setting is missing or out of range
├── UnreadableImageError   bytes that are no photo, or one too large to be safe
│   └── TooManyPixelsError        a photo too large to be decoded safely
├── EncoderError           an encoder is missing, broken, or cannot be made
│   └── WeightsUnavailableError   pretrained weights could not be had
├── MissingPackageError    an optional package that the request needs is not installed
├── NotEnoughLabelsError   too few labels to fit any head
├── LabelTableError        a CSV file of labels that cannot be used
├── TrainingError          an encoder cannot be fine-tuned as requested
│   ├── TrainingCancelledError    somebody cancelled it
│   └── OutOfMemoryError          it exceeded its memory limit, or the machine's memory
├── StrategyError          a strategy with an unknown name
├── PlotError              curves cannot be plotted
├── StoreError             the database cannot be opened or written
│   ├── NewerStoreError           a newer carcond has used it
│   └── MissingStoreError         there is no database yet
├── BackupError            a backup cannot be written, read or restored
├── RegistryError          a model version is missing or broken
├── ModelMirrorError       models cannot be exchanged with the object store
├── LabelConfigError       a label config without cleanliness or damage choices
├── LabelStudioError       Label Studio refused, or could not be reached
│   └── ProjectGoneError          it has no such project
├── ConnectionRecordError  a project cannot be connected, or has no record to undo
├── ProbeError             a step of the end-to-end probe was not seen in time
├── BackendError           the backend refused, or could not be reached
├── PhotoFetchError        a photo could not be downloaded, or its host is not allowed
└── QueueUnavailableError  Redis could not be reached
"""


class CarcondError(Exception):
    """Base of all errors raised on purpose; its message can be shown to a user."""


class SettingsError(CarcondError):
    """A setting is missing, malformed or out of range."""


class UnreadableImageError(CarcondError):
    """The bytes are not a photo that can be decoded safely."""


class TooManyPixelsError(UnreadableImageError):
    """The photo is too large to be decoded safely."""


class EncoderError(CarcondError):
    """An encoder is missing, broken, or cannot be made."""


class WeightsUnavailableError(EncoderError):
    """Pretrained weights could not be loaded from the requested source."""


class MissingPackageError(CarcondError):
    """An optional package that the request needs is not installed."""


class NotEnoughLabelsError(CarcondError):
    """There are too few labels to fit any head."""


class LabelTableError(CarcondError):
    """A CSV file of labels is missing, lacks a column, or has words that mean no class."""


class TrainingError(CarcondError):
    """An encoder cannot be fine-tuned as requested: settings, photos or an earlier run do not allow it."""


class TrainingCancelledError(TrainingError):
    """A fine-tuning was cancelled."""


class OutOfMemoryError(TrainingError):
    """A fine-tuning exceeded its memory limit, or the machine's memory."""


class StrategyError(CarcondError):
    """A strategy has an unknown name."""


class PlotError(CarcondError):
    """Curves cannot be plotted on this installation."""


class StoreError(CarcondError):
    """The database cannot be opened or written."""


class NewerStoreError(StoreError):
    """The database's tables are of a later revision than this program knows."""


class MissingStoreError(StoreError):
    """There is no database yet, and reading it must not create one."""


class BackupError(CarcondError):
    """A backup cannot be written or restored."""


class RegistryError(CarcondError):
    """A model version is missing, broken, or cannot be written."""


class ModelMirrorError(CarcondError):
    """Encoders and versions cannot be exchanged with the object store."""


class LabelConfigError(CarcondError):
    """A label config has no choices for cleanliness or damage."""


class LabelStudioError(CarcondError):
    """Label Studio refused a request or could not be reached.

    Attributes:
        status: the HTTP status of the refusal; None when Label Studio was not reached.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProjectGoneError(LabelStudioError):
    """Label Studio has no project of this number, or none that the token may see."""


class ConnectionRecordError(CarcondError):
    """A project cannot be connected as it is, or there is no record by which to undo its connection."""


class ProbeError(CarcondError):
    """A step of the end-to-end probe was not seen in time."""


class BackendError(CarcondError):
    """The backend refused a request of the demo, or could not be reached."""


class PhotoFetchError(CarcondError):
    """A photo could not be downloaded, or comes from a place we may not fetch from.

    Attributes:
        transient: True if a later retry may succeed.
        status: the HTTP status of the refusal; None when there was no response, or no request.
        host: the host that is not allowed; None when that was not the reason.
    """

    def __init__(
        self, message: str, transient: bool = False, status: int | None = None, host: str | None = None
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.status = status
        self.host = host


class QueueUnavailableError(CarcondError):
    """Redis, which holds the job queue, could not be reached."""
