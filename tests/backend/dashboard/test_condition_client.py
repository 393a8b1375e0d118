import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from backend.dashboard.condition_client import ConditionRefusedError, Refusal, ask_condition
from backend.dashboard.photo_words import WORDS
from backend.services import get_services
from backend.web.app import create_app
from carcond.settings import Settings
from tests.backend.conftest import MakeSettings
from tests.backend.http_server import HttpServer, Reply
from tests.backend.versions import write_version
from tests.backend.web.api.test_routes import dark_photo

TOKEN = "token-of-the-demo"
KNOWN = {"CARCOND_API_TOKENS": f"demo:{hashlib.sha256(TOKEN.encode()).hexdigest()}"}

Run = Callable[..., Settings]


@pytest.fixture
def run(make_settings: MakeSettings, models_dir: Path) -> Iterator[Run]:
    """Call with settings: a backend runs with them, and a version serves project 1. Returns the demo's settings."""
    stops = []

    def start(**variables: str) -> Settings:
        write_version(models_dir)
        settings = make_settings(**variables)
        server = make_server("127.0.0.1", 0, create_app(get_services()), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stops.append((server, thread))
        return settings.model_copy(update={"backend_url": f"http://127.0.0.1:{server.server_port}"})

    yield start
    for server, thread in stops:
        server.shutdown()
        thread.join()
        server.server_close()


def test_both_conditions_come_with_the_picture_and_the_mobile_form(run: Run, drawn_cars: list[bytes]) -> None:
    answer = ask_condition(run(), 1, drawn_cars[0], "ru")
    assert set(answer.tasks) == {"cleanliness", "damage"}
    assert answer.photos[0].overlay
    assert answer.version == "carcond-0001"
    assert any("а" <= letter <= "я" for letter in answer.car_condition.cleanliness.display_message)


def test_a_photo_that_cannot_be_judged_is_an_answer(run: Run) -> None:
    answer = ask_condition(run(), 1, dark_photo(), "en")
    assert answer.tasks == {}
    assert "too dark" in answer.messages[0]


def test_the_token_opens_a_protected_backend(run: Run, drawn_cars: list[bytes]) -> None:
    assert ask_condition(run(**KNOWN, CARCOND_DEMO_TOKEN=TOKEN), 1, drawn_cars[0], "en").tasks


@pytest.mark.parametrize("token", ["", "wrong"])
def test_an_unknown_token_is_explained_and_not_repeated(run: Run, drawn_cars: list[bytes], token: str) -> None:
    with pytest.raises(ConditionRefusedError, match="set CARCOND_DEMO_TOKEN") as refused:
        ask_condition(run(**KNOWN, CARCOND_DEMO_TOKEN=token), 1, drawn_cars[0], "en")
    assert refused.value.refusal == Refusal.NOT_LET_IN
    assert "wrong" not in str(refused.value)


def test_what_the_backend_refuses_is_told_in_its_words(run: Run, drawn_cars: list[bytes]) -> None:
    settings = run()
    get_services().store.add_project(2)
    with pytest.raises(ConditionRefusedError, match="there is no model version in project 2 yet") as none_yet:
        ask_condition(settings, 2, drawn_cars[0], "en")
    with pytest.raises(ConditionRefusedError, match=r"did not judge the photo: .*expected a JPEG") as no_photo:
        ask_condition(settings, 1, b"no photo", "en")
    assert (none_yet.value.refusal, no_photo.value.refusal) == (Refusal.NOT_READY, Refusal.NO_PHOTO)


def test_a_backend_that_is_away_is_named(make_settings: MakeSettings) -> None:
    settings = make_settings(CARCOND_BACKEND_URL="http://127.0.0.1:1")
    expected = r"The backend at http://127.0.0.1:1 could not be reached .*BACKEND_URL"
    with pytest.raises(ConditionRefusedError, match=expected) as away:
        ask_condition(settings, 1, b"", "en")
    assert away.value.refusal == Refusal.AWAY


@pytest.mark.parametrize("reply", [Reply(b"<html>", 404), Reply(b"{}"), Reply(b"no JSON")])
def test_another_program_in_its_place_is_told(make_settings: MakeSettings, server: HttpServer, reply: Reply) -> None:
    server.answers["/api/v1/condition"] = reply
    with pytest.raises(ConditionRefusedError, match="is CARCOND_BACKEND_URL right") as other:
        ask_condition(make_settings(CARCOND_BACKEND_URL=server.url), 1, b"", "en")
    assert other.value.refusal == Refusal.OTHER


def test_every_refusal_has_words_of_its_own_in_each_language() -> None:
    words = [words.refusals[refusal] for words in WORDS.values() for refusal in Refusal]
    assert len(set(words)) == len(WORDS) * len(Refusal)
