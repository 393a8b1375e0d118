"""The store's database. It is neither created nor upgraded here."""

from collections.abc import Iterator

from backend.doctor.examination import Examination
from backend.doctor.finding import Finding, Kind, Level, fine
from carcond.errors import MissingStoreError, NewerStoreError, StoreError
from carcond.store.database import check_writable, shown_address, store_revision
from carcond.store.migrations import HEAD

MISSING = Kind(
    "database-missing",
    Level.FAULT,
    "Commands know no project.",
    "There is no store at {url}.",
    "The backend makes it at its first start; until then, or with another DATABASE_URL, nothing is known here.",
    "Set DATABASE_URL as it is for the backend. For a stack that scripts/up started: set -a; . "
    ".carcond/environment; set +a",
)
AWAY = Kind(
    "database-unreachable",
    Level.FAULT,
    "The backend answers with errors, and nothing is learnt.",
    "The store at {url} cannot be opened: {error}",
    "It stores photos, embeddings and the split.",
    "Start the database, or set DATABASE_URL to its address as seen from here.",
)
READ_ONLY = Kind(
    "database-not-writable",
    Level.FAULT,
    "The worker's turns fail; the backend answers with errors.",
    "The store at {url} cannot be written: {error}",
    "Labels, embeddings and predictions are stored there.",
    "Give the backend's user the right to write the file and its folder, or to UPDATE the tables; make room on the "
    "disk.",
)
NEWER = Kind(
    "database-newer",
    Level.FAULT,
    "Backend, worker and commands end with one line.",
    "A newer carcond has used the store at {url}: {error}",
    "This one would misread it.",
    "Run the newer carcond, or restore the backup made before the upgrade: carcond restore FILE",
)
OLDER = Kind(
    "database-older",
    Level.FAULT,
    "None yet.",
    "The store at {url} is of revision {revision}, and this carcond's is {head}.",
    "Backend and worker upgrade it when they start, so they have not been started since this carcond was installed.",
    "carcond backup FILE, then restart the backend and the worker.",
)


def check_database(whole: Examination) -> Iterator[Finding]:
    """Check that the store exists, is of this program's revision, and is writable."""
    url = whole.settings.database_url
    shown = shown_address(url)
    try:
        revision = store_revision(url)
    except MissingStoreError:
        yield MISSING.found(url=shown)
        return
    except NewerStoreError as error:
        yield NEWER.found(url=shown, error=error)
        return
    except StoreError as error:
        yield AWAY.found(url=shown, error=error)
        return
    if revision != HEAD:
        yield OLDER.found(url=shown, revision=revision or "none", head=HEAD)
        return
    try:
        check_writable(url)
    except StoreError as error:
        yield READ_ONLY.found(url=shown, error=error)
    else:
        yield fine(shown)
