import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from carcond.errors import SettingsError
from carcond.settings import Settings, get_settings, load_settings

SHARED_NAMES = {"LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_HOST", "REDIS_URL", "DATABASE_URL"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper() in SHARED_NAMES or name.upper().startswith("CARCOND_"):
            monkeypatch.delenv(name)


def test_without_any_variable_the_defaults_serve_one_machine() -> None:
    settings = load_settings()
    assert settings.label_studio_url == "http://127.0.0.1:8080"
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.database_url.startswith("sqlite:///")
    assert settings.models_dir == Path("models")


def test_shared_settings_are_read_under_their_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "https://labels.example/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    monkeypatch.setenv("LABEL_STUDIO_HOST", "https://public.example")
    monkeypatch.setenv("REDIS_URL", "redis://cache:6379/1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/carcond")
    settings = load_settings()
    assert settings.label_studio_url == "https://labels.example"
    assert settings.label_studio_api_key.get_secret_value() == "token"
    assert settings.label_studio_host == "https://public.example"
    assert settings.redis_url == "redis://cache:6379/1"
    assert settings.database_url == "postgresql://db/carcond"


def test_own_settings_carry_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_SIZE", "50")
    monkeypatch.setenv("CARCOND_SLOTS", "5")
    settings = load_settings()
    assert (settings.queue_size, settings.slots) == (20, 5)


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "")
    monkeypatch.setenv("CARCOND_QUEUE_SIZE", "")
    settings = load_settings()
    assert (settings.label_studio_url, settings.queue_size) == ("http://127.0.0.1:8080", 20)


def test_photo_hosts_are_split_at_commas_and_folded_to_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_PHOTO_HOSTS", " Photos.Example, cdn.example:9000 ,,::1,[2001:db8::1]:80")
    hosts = ("photos.example", "cdn.example:9000", "[::1]", "[2001:db8::1]:80")
    assert load_settings().photo_hosts == hosts


@pytest.mark.parametrize(
    "host", ["http://a.example", "a.example/b", "bob@a.example", "a.example:port", "a:0", ":80", "[::1"]
)
def test_what_is_no_photo_host_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("CARCOND_PHOTO_HOSTS", f"photos.example,{host}")
    with pytest.raises(SettingsError, match=r"CARCOND_PHOTO_HOSTS.*photos\.example\.com:9000"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CARCOND_QUEUE_SIZE", "many"),
        ("CARCOND_QUEUE_SIZE", "9"),
        ("CARCOND_QUEUE_SIZE", "1001"),
        ("CARCOND_SLOTS", "0"),
        ("CARCOND_SLOTS", "2.5"),
        ("CARCOND_GATE_MARGIN", "-0.1"),
        ("CARCOND_GATE_MARGIN", "2"),
        ("CARCOND_GATE_MIN_PHOTOS", "1"),
        ("CARCOND_MAX_PHOTO_BYTES", "-1"),
        ("CARCOND_DEBOUNCE_S", "nan"),
        ("CARCOND_PHOTO_TIMEOUT_S", "0"),
        ("CARCOND_PHOTO_TIMEOUT_S", "inf"),
        ("CARCOND_RECONCILE_EVERY_S", "inf"),
        ("LABEL_STUDIO_URL", "localhost:8080"),
        ("LABEL_STUDIO_URL", "ftp://labels.example"),
        ("LABEL_STUDIO_URL", "http://"),
        ("LABEL_STUDIO_URL", "http://[::1"),
        ("LABEL_STUDIO_URL", "http://labels.example:port"),
        ("LABEL_STUDIO_HOST", "labels.example"),
    ],
)
def test_a_malformed_value_is_named_with_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert value in str(caught.value)


def test_all_malformed_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_SLOTS", "0")
    monkeypatch.setenv("LABEL_STUDIO_URL", "nowhere")
    with pytest.raises(SettingsError, match=r"(?=.*CARCOND_SLOTS)(?=.*LABEL_STUDIO_URL)"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CARCOND_BASIC_AUTH_USER", "anna"), ("CARCOND_BASIC_AUTH_PASSWORD", "hunter2")],
)
def test_user_and_password_go_together(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match="CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD"):
        load_settings()


def test_no_error_shows_the_value_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "hunter2")
    monkeypatch.setenv("CARCOND_BASIC_AUTH_PASSWORD", "hunter2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/carcond")
    with pytest.raises(SettingsError) as only_the_password:
        load_settings()
    monkeypatch.setenv("CARCOND_SLOTS", "0")
    with pytest.raises(SettingsError) as with_another_error:
        load_settings()
    assert "hunter2" not in str(only_the_password.value) + str(with_another_error.value)


@pytest.mark.parametrize("url", ["ftp://me:hunter2@host", "me:hunter2@host", "http://me:hunter2/7@host"])
def test_no_error_shows_a_password_inside_an_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    with pytest.raises(SettingsError, match="host") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_the_error_does_not_carry_the_values_along_as_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_BASIC_AUTH_PASSWORD", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_printed_settings_hide_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "hunter2")
    assert "hunter2" not in repr(load_settings())


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.queue_size = 30  # type: ignore[misc]


def test_a_process_reads_its_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    first = get_settings()
    monkeypatch.setenv("CARCOND_QUEUE_SIZE", "99")
    assert get_settings() is first
    get_settings.cache_clear()


def test_tokens_of_applications_are_kept_as_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_API_TOKENS", f"shop:{'a' * 64}, yard:{'b' * 64},")
    assert load_settings().api_tokens == {"shop": "a" * 64, "yard": "b" * 64}


@pytest.mark.parametrize(
    ("value", "views"), [("224", (224,)), ("224+448", (224, 448)), (" 128 + 256+512", (128, 256, 512))]
)
def test_views_are_joined_by_plus(monkeypatch: pytest.MonkeyPatch, value: str, views: tuple[int, ...]) -> None:
    monkeypatch.setenv("CARCOND_VIEWS", value)
    assert load_settings().views == views


@pytest.mark.parametrize(
    "value", ["two", "224,448", "224+", "-224", "448+224", "224+224", "224+320", "31", "224+2240", "٢٢٤"]
)
def test_views_that_no_network_can_see_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CARCOND_VIEWS", value)
    with pytest.raises(SettingsError, match=r"CARCOND_VIEWS: expected .*like 224\+448.*got") as caught:
        load_settings()
    assert value in str(caught.value)


@pytest.mark.parametrize("value", ["plain-token", "shop:plain-token", f":{'a' * 64}", f"shop:{'A' * 64}"])
def test_a_token_that_is_no_digest_is_refused_and_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_API_TOKENS", value)
    with pytest.raises(SettingsError, match="CARCOND_API_TOKENS: expected name:digest") as caught:
        load_settings()
    assert value not in str(caught.value)


def test_two_tokens_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_API_TOKENS", f"shop:{'a' * 64},shop:{'b' * 64}")
    with pytest.raises(SettingsError, match="a name of its own"):
        load_settings()


@pytest.mark.parametrize(
    "value",
    [
        "localhost:6379",
        "hunter2@localhost:6379",
        "http://:hunter2@localhost:6379",
        " redis://:hunter2@localhost",
        "redis://:hunter2/x@localhost:6379",
        "redis://:hunter2@localhost:port",
        "redis://:hunter2@[::1",
    ],
)
def test_an_address_of_redis_that_is_none_is_told_without_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", value)
    with pytest.raises(SettingsError, match="REDIS_URL: expected an address like redis://") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert "localhost" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["redis://cache", "rediss://me:hunter%2F2@cache:6380/2?ssl_cert_reqs=none", "unix:///run/redis.sock?db=1"]
)
def test_every_kind_of_address_that_redis_has_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", value)
    assert load_settings().redis_url == value


@pytest.mark.parametrize(
    ("former", "current", "setting"),
    [
        ("CARCOND_TYPICAL_PHOTOS", "CARCOND_COLD_START_LABELS", "cold_start_labels"),
        ("CARCOND_GROUPED_PHOTOS", "CARCOND_DIVERSITY_UNTIL_LABELS", "diversity_until_labels"),
    ],
)
def test_a_variable_of_the_last_release_still_works_and_names_the_new_one(
    former: str, current: str, setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(former, "77")
    assert getattr(load_settings(), setting) == 77
    assert f"{former} is called {current} now" in caplog.text
    monkeypatch.setenv(current, "66")
    assert getattr(load_settings(), setting) == 66
