"""Everything that carcond raises on purpose.

CarcondError
├── SettingsError          a setting is missing or out of range
├── UnreadableImageError   bytes that are no photo, or one too large to be safe
├── EncoderError           an encoder is missing, broken, or cannot be made
│   └── WeightsUnavailableError   pretrained weights could not be had
├── NotEnoughLabelsError   no head can be fitted on what there is
├── LabelTableError        a CSV file of labels that cannot be used
├── TrainingError          an encoder cannot be fine-tuned as asked
│   ├── TrainingCancelledError    somebody does not want it any more
│   └── OutOfMemoryError          it took more memory than it may, or than there is
├── StrategyError          a strategy with a name that means nothing
├── PlotError              curves cannot be drawn
├── StoreError             the database cannot be opened or written
│   ├── NewerStoreError           a newer carcond has used it
│   └── MissingStoreError         there is none yet
├── BackupError            a backup cannot be written, read or restored
├── RegistryError          a model version is missing or broken
├── ModelMirrorError       models cannot be exchanged with the object store
├── LabelConfigError       a label config without cleanliness or damage choices
├── LabelStudioError       Label Studio refused, or could not be reached
│   └── ProjectGoneError          it has no such project
├── ConnectionRecordError  a project cannot be connected, or has no record to undo
├── BackendError           the backend refused, or could not be reached
├── PhotoFetchError        a photo could not be downloaded, or may not be
└── QueueUnavailableError  Redis could not be reached
"""


class CarcondError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown to a person."""


class SettingsError(CarcondError):
    """A setting is missing, malformed or out of range."""


class UnreadableImageError(CarcondError):
    """The bytes are not a photo that can be decoded safely."""


class EncoderError(CarcondError):
    """An encoder is missing, broken, or cannot be made."""


class WeightsUnavailableError(EncoderError):
    """Pretrained weights could not be had from where they were asked for."""


class NotEnoughLabelsError(CarcondError):
    """There are too few labels to fit any head."""


class LabelTableError(CarcondError):
    """A CSV file of labels is missing, lacks a column, or has words that mean no class."""


class TrainingError(CarcondError):
    """An encoder cannot be fine-tuned as asked: settings, photos or an earlier run do not allow it."""


class TrainingCancelledError(TrainingError):
    """A fine-tuning was cancelled."""


class OutOfMemoryError(TrainingError):
    """A fine-tuning took more memory than it may, or than there is."""


class StrategyError(CarcondError):
    """A strategy was asked for by a name that means nothing."""


class PlotError(CarcondError):
    """Curves cannot be drawn on this installation."""


class StoreError(CarcondError):
    """The database cannot be opened or written."""


class NewerStoreError(StoreError):
    """The database's tables are of a later revision than this program knows."""


class MissingStoreError(StoreError):
    """There is no database yet, where one is looked at without making it."""


class BackupError(CarcondError):
    """A backup cannot be written, or is none that can be restored here."""


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
    """A project cannot be connected as it is, or there is no record by which to take its connection back."""


class BackendError(CarcondError):
    """The backend refused what the demo asked it, or could not be reached."""


class PhotoFetchError(CarcondError):
    """A photo could not be downloaded, or comes from a place we may not fetch from.

    Attributes:
        transient: whether asking again later may help.
        status: the HTTP status of the refusal; None when there was no answer, or none was asked for.
        host: from which photos may not be fetched; None when that was not the reason.
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
