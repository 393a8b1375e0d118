"""Label Studio itself: is it reachable, is it the tested version, and does it accept our token?"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx

from backend.doctor.examination import VERSION_PATH, Answer, Examination, shown_url
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.label_studio.token_auth import is_personal_token
from carcond.errors import LabelStudioError

TESTED_VERSION = "1.23.2"

UNREACHABLE = Kind(
    "label-studio-unreachable",
    Level.FAULT,
    "Nothing is learnt; commands say that Label Studio could not be reached.",
    "Label Studio does not answer at {url} ({error}).",
    "Labels are read from it, and pre-labels are written to it.",
    "Start it (scripts/up, docker compose up), or set LABEL_STUDIO_URL to its address as seen from here. In a "
    "container, 127.0.0.1 is the container itself.",
)
MOVED = Kind(
    "label-studio-moved",
    Level.FAULT,
    "Commands say that Label Studio redirects.",
    "{url} redirects to {location}.",
    "The token is sent to LABEL_STUDIO_URL alone, and never after a redirect.",
    "Set LABEL_STUDIO_URL={location}",
)
STRANGER = Kind(
    "not-label-studio",
    Level.FAULT,
    "Commands say that they expected JSON, or answer HTTP 404.",
    "What answers at {url} is not Label Studio (HTTP {status}).",
    "Another program listens there, like the backend, or Label Studio lives below a path.",
    "Set LABEL_STUDIO_URL to Label Studio's address: the one in the browser, up to where /projects begins.",
)
VERSION = Kind(
    "label-studio-version",
    Level.WARNING,
    "Often none.",
    "Label Studio is {version}; carcond was tested with {tested}.",
    "Other versions may order or store predictions in another way.",
    "If something is odd, try Label Studio {tested}: pip install label-studio=={tested}, or the image of that tag.",
)
NO_TOKEN = Kind(
    "token-missing",
    Level.FAULT,
    "Label Studio answers HTTP 401.",
    "LABEL_STUDIO_API_KEY is not set.",
    "Without it no label can be read.",
    "Set LABEL_STUDIO_API_KEY to the token in Label Studio under Account & Settings. For a stack that scripts/up "
    "started: set -a; . .carcond/environment; set +a",
)
WRONG_TOKEN = Kind(
    "token-wrong",
    Level.FAULT,
    "Label Studio answers HTTP 401; photos are not fetched, labels not read.",
    "Label Studio does not know the token in LABEL_STUDIO_API_KEY.",
    "It was mistyped or renewed, or belongs to another Label Studio.",
    "Copy the token again from Account & Settings in Label Studio at {url}, and set LABEL_STUDIO_API_KEY for "
    "backend and worker.",
)
LEGACY_OFF = Kind(
    "legacy-tokens-off",
    Level.FAULT,
    "Label Studio answers HTTP 401 though the token is right.",
    "LABEL_STUDIO_API_KEY is a legacy token, and this organization has them switched off.",
    "Label Studio switches them off by default.",
    "Make a personal access token under Account & Settings and set LABEL_STUDIO_API_KEY to it. Or let the owner "
    "switch legacy tokens on: Organization > API Tokens Settings > Legacy Tokens.",
)
DEAD_PERSONAL = Kind(
    "personal-token-refused",
    Level.FAULT,
    "Label Studio answers HTTP 401 to the refresh of the token.",
    "Label Studio refuses the personal access token in LABEL_STUDIO_API_KEY: it is expired, revoked or cut off.",
    "carcond trades it for tokens of a few minutes, and gets none.",
    "Make a new one under Account & Settings > Personal Access Token and set LABEL_STUDIO_API_KEY to the whole of it.",
)
ACCESS_TOKEN = Kind(
    "access-token",
    Level.FAULT,
    "It worked for five minutes, then everything answered HTTP 401.",
    "LABEL_STUDIO_API_KEY is an access token, which lives for minutes.",
    "carcond makes such tokens by itself, from a personal access token.",
    "Set LABEL_STUDIO_API_KEY to what Account & Settings > Personal Access Token shows, not to what "
    "/api/token/refresh/ answers.",
)


def check_label_studio(whole: Examination) -> Iterator[Finding]:
    """Check that Label Studio answers at its address."""
    try:
        greeting = whole.greeting
    except httpx.HTTPError as error:
        yield UNREACHABLE.found(url=whole.label_studio, error=type(error).__name__)
        return
    if greeting.location:
        yield MOVED.found(url=whole.label_studio, location=shown_url(greeting.location).removesuffix(VERSION_PATH))
    elif not _release(greeting):
        yield STRANGER.found(url=whole.label_studio, status=greeting.status)
    else:
        yield fine(f"answers at {whole.label_studio}")


def check_version(whole: Examination) -> Iterator[Finding]:
    """Check that Label Studio is the version that carcond was tested with."""
    release = _release(whole.greeting)
    yield fine(release) if release == TESTED_VERSION else VERSION.found(version=release, tested=TESTED_VERSION)


def _release(answer: Answer) -> str:
    """Version that Label Studio reports; empty when something else answered."""
    return str(answer.body.get("release") or "") if isinstance(answer.body, dict) else ""


def check_token(whole: Examination) -> Iterator[Finding]:
    """Check that Label Studio accepts the token."""
    key = whole.settings.label_studio_api_key.get_secret_value()
    if not key:
        yield NO_TOKEN.found()
        return
    is_personal = is_personal_token(key)
    if is_personal and _token_type(key) == "access":
        yield ACCESS_TOKEN.found()
        return
    try:
        whole.api.request("GET", "/api/current-user/whoami")
    except LabelStudioError as error:
        if error.status != httpx.codes.UNAUTHORIZED:
            raise
        if is_personal:
            yield DEAD_PERSONAL.found()
        elif "legacy token authentication" in str(error):
            yield LEGACY_OFF.found()
        else:
            yield WRONG_TOKEN.found(url=whole.label_studio)
        return
    yield fine("a personal access token, accepted" if is_personal else "a legacy token, accepted")


def _token_type(token: str) -> str:
    """Type that a JSON web token states; empty without one. Its signature is Label Studio's business."""
    payload = token.split(".")[1]
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return ""
    return str(claims.get("token_type") or "") if isinstance(claims, dict) else ""
