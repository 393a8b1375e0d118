"""Photos: a few are fetched, as the worker would."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from backend.doctor.examination import ProjectExamination, shown_url
from backend.doctor.finding import CannotSayError, Finding, Kind, Level, fine
from backend.label_studio.label_config import bind_label_config
from backend.label_studio.photo_fetcher import PhotoFetcher
from carcond.errors import LabelConfigError, PhotoFetchError

REFUSED = Kind(
    "photos-refused",
    Level.FAULT,
    "The project's photos are not learnt from; the worker's log has HTTP 401 or 403.",
    "{count} of {tried} photos tried answered HTTP {status}, like task {task} at {url}.",
    "The worker may not see them: the token is for another Label Studio, a signed address has expired, or the host "
    "requires a login.",
    "At Label Studio: LABEL_STUDIO_API_KEY of a member of the organization, with the project's storage connected. "
    "At a cloud storage: Settings > Cloud Storage > Use pre-signed URLs.",
)
MISSING = Kind(
    "photos-missing",
    Level.FAULT,
    "Tasks show no picture, and are not learnt from.",
    "{count} of {tried} photos tried answered HTTP {status}, like task {task} at {url}.",
    "The file was moved or deleted, or the folder is not connected as a storage.",
    "Put the file back, or connect its folder: Settings > Cloud Storage > Add Source Storage > Local files. For "
    "scripts/up: scripts/up --photos DIR",
)
HOST = Kind(
    "label-studio-host",
    Level.FAULT,
    "Photos are shown in the browser, and are not learnt from.",
    "{count} of {tried} photo addresses tried begin with {origin}, which LABEL_STUDIO_HOST ({host}) does not name.",
    "The token is sent to Label Studio alone, so other names of it have to be known.",
    "Set LABEL_STUDIO_HOST={origin} for backend and worker, as it is for Label Studio itself.",
)
FOREIGN = Kind(
    "photo-host",
    Level.FAULT,
    "The project's photos are not learnt from.",
    "{count} of {tried} photo addresses tried are at {host}, from where none may be fetched.",
    "Addresses come from whoever imported them, so only named hosts are requested.",
    "If you trust it, set CARCOND_PHOTO_HOSTS={host} for backend and worker (several with commas between).",
)
UNREADABLE = Kind(
    "photos-unreadable",
    Level.WARNING,
    "Some photos never get a pre-label.",
    "{count} of {tried} photos could not be read, like task {task}: {problem}",
    "They are not learnt from, and are served last.",
    "Put a readable picture in its place. All of them: carcond quality --project {project}",
)

_TRIES = 4
_CONSIDERED = 100
# Where Label Studio serves photos.
_LOCAL_FILES = "/data/local-files/"
_UPLOADS = "/data/upload/"
_OWN_PATHS = ("/data/", "/storage-data/", "/tasks/", "/projects/")


@dataclass(frozen=True)
class _Failure:
    """Reason why a photo could not be fetched: a kind, and the group of failures that it belongs to."""

    kind: Kind
    group: str
    task_id: int
    url: str
    problem: str


def check_photos(project: ProjectExamination) -> Iterator[Finding]:
    """Check that photos can be fetched."""
    addresses = _sample(project)
    if not addresses:
        yield fine("there are none yet")
        return
    fetcher = project.whole.services.photos
    with ThreadPoolExecutor(_TRIES) as pool:
        tried = pool.map(lambda item: _try(fetcher, *item), addresses.items())
    failures = [failure for failure in tried if failure]
    groups = Counter((f.kind.name, f.group) for f in failures)
    for name, group in groups:
        first = next(f for f in failures if (f.kind.name, f.group) == (name, group))
        yield _tell(project, first, groups[name, group], len(addresses))
    if not failures:
        yield fine(f"{len(addresses)} tried")


def _sample(project: ProjectExamination) -> dict[int, str]:
    """Task id -> address of a few photos."""
    try:
        key = bind_label_config(project.info.label_config).image_key
    except LabelConfigError as error:
        raise CannotSayError("the label config does not say which field is the photo") from error
    _, tasks = project.whole.api.find_tasks(project.id, count=_CONSIDERED)
    chosen = tasks[:: max(1, -(-len(tasks) // _TRIES))]
    return {task.id: str(task.data.get(key) or "") for task in chosen}


def _try(fetcher: PhotoFetcher, task_id: int, url: str) -> _Failure | None:
    try:
        fetcher.address(url)
    except PhotoFetchError as error:
        return _misplaced(task_id, url, error)
    try:
        fetcher.fetch(url)
    except PhotoFetchError as error:
        kind = {401: REFUSED, 403: REFUSED, 404: MISSING, 410: MISSING}.get(error.status or 0, UNREADABLE)
        if error.status == 500 and urlsplit(url).path.startswith(_UPLOADS):
            kind = MISSING  # how Label Studio 1.23 answers for an upload that it does not know
        return _Failure(kind, str(error.status), task_id, url, str(error))
    return None


def _misplaced(task_id: int, url: str, error: PhotoFetchError) -> _Failure:
    """Failure of a photo at an address that is never requested."""
    if error.host is None:
        return _Failure(UNREADABLE, "", task_id, url, str(error))
    parts = urlsplit(url.strip())
    if parts.path.startswith(_OWN_PATHS):
        return _Failure(HOST, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", task_id, url, str(error))
    return _Failure(FOREIGN, error.host, task_id, url, str(error))


def _tell(project: ProjectExamination, first: _Failure, count: int, tried: int) -> Finding:
    host = project.whole.settings.label_studio_host
    return first.kind.found(
        count=count,
        tried=tried,
        status=first.group,
        task=first.task_id,
        url=_shortened(first.url),
        origin=first.group,
        host={HOST.name: shown_url(host) or "not set"}.get(first.kind.name, first.group),
        problem=first.problem,
        project=project.id,
    )


def _shortened(url: str) -> str:
    """Part of an address that locates a photo: what follows may be a signature."""
    try:
        query = urlsplit(url).query if _LOCAL_FILES in url else ""
        return f"{shown_url(url.strip())}{'?' if query else ''}{query}" or "no address"
    except ValueError:
        return "a malformed address"


def check_known_problems(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the worker could read all photos."""
    photos = project.whole.services.store.photos(project.id)
    bad = [photo for photo in photos if photo.problem]
    if bad:
        yield UNREADABLE.found(
            count=len(bad), tried=len(photos), task=bad[0].task_id, problem=bad[0].problem, project=project.id
        )
    else:
        yield fine(f"nothing wrong with {len(photos)} photos")
