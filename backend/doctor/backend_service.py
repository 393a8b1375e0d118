"""The backend as a project of Label Studio has it connected."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from backend.doctor.examination import ProjectExamination, ask, shown_url
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.label_studio.address_checks import backend_refusal
from backend.label_studio.backend_address import BackendAddress, is_guarded
from backend.label_studio.ssrf_guard import opening_lines

NOT_CONNECTED = Kind(
    "backend-not-connected",
    Level.FAULT,
    "No pre-labels, and photos in random order; Settings > Model is empty.",
    "The project has no ML backend of carcond's connected.",
    "Label Studio then reports no new labels.",
    "carcond connect --project {project} --backend {url}",
)
NOT_FIRST = Kind(
    "backend-not-first",
    Level.WARNING,
    "Photos that were just imported show another model's pre-labels.",
    "The ML backend {title} is connected before carcond's.",
    "Label Studio asks only the first one for predictions on the spot. The queue and its pre-labels are carcond's.",
    "If that is not meant, remove {title} under Settings > Model.",
)
GUARDED = Kind(
    "ssrf-guard",
    Level.FAULT,
    "Connecting the backend answers HTTP 403, or it shows as disconnected though it runs.",
    "Label Studio's SSRF guard does not let it call the backend at {url}.",
    "By default it calls public addresses only.",
    "Start Label Studio with these in its environment: {lines}",
)
UNREACHABLE = Kind(
    "backend-unreachable",
    Level.FAULT,
    "The backend shows as disconnected; no pre-labels for new photos.",
    "Label Studio does not reach the backend at {url}; from here it {here}.",
    "Without it Label Studio reports no new labels.",
    "Start the backend (scripts/up, docker compose up backend). If it runs under another name for Label Studio: "
    "carcond connect --project {project} --backend http://THAT-NAME:9090",
)
PASSWORD = Kind(
    "backend-password",
    Level.FAULT,
    "The backend shows an error in Settings > Model; its log has HTTP 401.",
    "The backend at {url} refuses the user and password of {whose}.",
    "It takes requests with CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD of its own environment only.",
    "Set both here as they were when the backend started, then: carcond connect --project {project} --backend {url}",
)
BROKEN = Kind(
    "backend-error",
    Level.FAULT,
    "The backend shows an error in Settings > Model.",
    "The backend at {url} answers Label Studio with an error: {error}",
    "Label Studio then asks it for no predictions.",
    "See the backend's log: .carcond/logs/backend.log, or docker compose logs backend",
)

_ERROR = "ER"
_CONNECTED = "CO"
# Where a server listens that can be reached at any address of its machine: it is the address of none.
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound to it here


def check_backend(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the backend is connected, the first, reachable, and accepts Label Studio's password."""
    ours, backend = project.ours, project.backend
    url = shown_url(backend.url)
    if ours is None:
        yield _not_connected(project, backend)
        return
    if project.backends[0] is not ours:
        yield NOT_FIRST.found(title=repr(project.backends[0]["title"]))
    status = _status_here(backend)
    if ours["state"] == _CONNECTED:
        if _other_user(ours, backend):
            yield PASSWORD.found(
                url=url, project=project.id, whose="Label Studio, which are not those of these settings"
            )
        elif status == httpx.codes.UNAUTHORIZED:
            yield PASSWORD.found(url=url, project=project.id, whose="these settings")
        else:
            yield fine(f"connected at {url}")
    elif ours["state"] == _ERROR and "401" in str(ours.get("error_message")):
        yield PASSWORD.found(url=url, project=project.id, whose="Label Studio")
    elif ours["state"] == _ERROR:
        yield BROKEN.found(url=url, error=ours.get("error_message"))
    elif is_guarded(backend_refusal(project.whole.api, backend, project.id)):
        yield guarded(GUARDED, backend)
    else:
        here = "answers" if status else "does not answer either"
        yield UNREACHABLE.found(url=url, project=project.id, here=here)


def _not_connected(project: ProjectExamination, backend: BackendAddress) -> Finding:
    if urlsplit(backend.url).hostname in _ANYWHERE:
        return NOT_CONNECTED.found(project=project.id, url="URL")
    if is_guarded(backend_refusal(project.whole.api, backend, project.id)):
        return guarded(GUARDED, backend)
    return NOT_CONNECTED.found(project=project.id, url=shown_url(backend.url))


def guarded(kind: Kind, backend: BackendAddress) -> Finding:
    """A finding about the SSRF guard, with the settings that open it for the backend alone."""
    host = urlsplit(backend.url).hostname or ""
    lines = opening_lines(host) or (
        "USE_DEFAULT_BANNED_SUBNETS=false",
        f"USER_ADDITIONAL_BANNED_SUBNETS=all inner networks but that of {host}",
    )
    return kind.found(url=shown_url(backend.url), lines=" ".join(lines))


def _other_user(row: dict[str, Any], backend: BackendAddress) -> bool:
    user = row.get("basic_auth_user") if row.get("auth_method") == "BASIC_AUTH" else ""
    return (user or "") != backend.user


def _status_here(backend: BackendAddress) -> int:
    """HTTP status of the backend from this machine, which may not reach it where Label Studio does; 0 for no answer."""
    try:
        return ask(f"{backend.url.rstrip('/')}/versions", (backend.user, backend.password)).status
    except httpx.HTTPError:
        return 0
