"""The webhook with which Label Studio reports new labels to the backend."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from backend.doctor.backend_service import guarded
from backend.doctor.examination import ProjectExamination, shown_url
from backend.doctor.finding import CannotSayError, Finding, Kind, Level, fine
from backend.label_studio.address_checks import webhook_refusal
from backend.label_studio.backend_address import is_dotless, is_guarded
from backend.label_studio.webhooks import WEBHOOK_ACTIONS

MISSING = Kind(
    "webhook-missing",
    Level.FAULT,
    "Labels are learnt a minute late, or only after Start Training.",
    "The project has no webhook to {url}.",
    "It reports new labels at once.",
    "carcond connect --project {project} --backend {backend}",
)
DOTLESS = Kind(
    "webhook-dotless-host",
    Level.FAULT,
    "The backend is connected, and labels are learnt a minute late; Settings > Webhooks is empty.",
    "The project has no webhook: Label Studio makes none for the host {host}, which has no dot in its name, and "
    "says nothing.",
    "It reports new labels at once.",
    "Give the backend a name with a dot (in Compose a network alias: aliases: [backend.carcond.internal]), then: "
    "carcond connect --project {project} --backend http://backend.carcond.internal:9090",
)
GUARDED = Kind(
    "ssrf-guard-webhook",
    Level.FAULT,
    "The backend is connected, and labels are learnt a minute late.",
    "Label Studio's SSRF guard does not let it call the webhook at {url}.",
    "The guard for webhooks is another than that for ML backends, and refuses without a word.",
    "Start Label Studio with these in its environment: {lines}",
)
OFF = Kind(
    "webhook-off",
    Level.FAULT,
    "Labels are learnt a minute late.",
    "The webhook to {url} is switched off.",
    "It reports new labels at once.",
    "carcond connect --project {project} --backend {backend}, or switch it on under Settings > Webhooks.",
)
SECRET = Kind(
    "webhook-secret",
    Level.FAULT,
    "Labels are learnt a minute late; the backend's log has HTTP 401 for /webhook.",
    "The webhook to {url} does not carry the backend's user and password.",
    "Label Studio uses those of the ML backend for other requests only, so the backend refuses its events.",
    "carcond connect --project {project} --backend {backend}",
)
ACTIONS = Kind(
    "webhook-actions",
    Level.FAULT,
    "Some changes of labels are learnt a minute late.",
    "The webhook to {url} does not report {actions}.",
    "Other changes are noticed only when the worker reconciles.",
    "carcond connect --project {project} --backend {backend}",
)
DOUBLED = Kind(
    "webhook-doubled",
    Level.WARNING,
    "Submitting takes longer.",
    "The project has {count} webhooks to {url}.",
    "Label Studio calls each of them while the annotator waits.",
    "carcond connect --project {project} --backend {backend}, or delete all but one under Settings > Webhooks.",
)
ORPHANED = Kind(
    "webhook-orphaned",
    Level.WARNING,
    "Submitting takes up to a second longer.",
    "A webhook goes to {url}, where none of the project's ML backends is.",
    "Label Studio leaves it behind when a backend is removed or moved, and waits for it at every submit.",
    "Delete it under Settings > Webhooks, unless another program of yours listens there (its number is {id}).",
)


def check_webhook(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the webhook exists once, with the expected fields, and that no stale one is left."""
    yield from _orphans(project)
    if project.ours is None:
        raise CannotSayError("no backend of carcond's is connected")
    backend = project.backend
    words = {"url": shown_url(backend.webhook_url), "backend": shown_url(backend.url), "project": project.id}
    hooks = [hook for hook in project.webhooks if hook["url"] == backend.webhook_url]
    refusal = webhook_refusal(project.whole.api, backend, project.id)
    if is_guarded(refusal):
        yield guarded(GUARDED, backend)
    elif not hooks and is_dotless(refusal):
        yield DOTLESS.found(project=project.id, host=urlsplit(backend.url).hostname)
    elif not hooks:
        yield MISSING.found(**words)
    elif not any(hook["is_active"] for hook in hooks):
        yield OFF.found(**words)
    else:
        yield from _faults(next(hook for hook in hooks if hook["is_active"]), backend.webhook_headers, words)
        if len(hooks) > 1:
            yield DOUBLED.found(count=len(hooks), **words)


def _faults(hook: Mapping[str, Any], headers: Mapping[str, str], words: Mapping[str, object]) -> Iterator[Finding]:
    """Faults of one webhook."""
    untold = set() if hook["send_for_all_actions"] else {*WEBHOOK_ACTIONS} - {*hook["actions"]}
    if not hook["send_payload"]:
        untold = {"the project (its payload is switched off)"}
    if untold:
        yield ACTIONS.found(actions=", ".join(sorted(untold)), **words)
    if headers and any((hook["headers"] or {}).get(name) != value for name, value in headers.items()):
        yield SECRET.found(**words)
    elif not untold:
        yield fine(f"to {words['url']}")


def _orphans(project: ProjectExamination) -> Iterator[Finding]:
    known = {project.whole.backend_at(row["url"]).webhook_url for row in project.backends}
    for hook in project.webhooks:
        if hook["url"] not in known and urlsplit(hook["url"]).path.endswith("/webhook"):
            yield ORPHANED.found(url=shown_url(hook["url"]), id=hook["id"])
