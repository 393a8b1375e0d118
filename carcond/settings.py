"""Typed settings, read once from the environment and validated.

Names that other programs share keep their usual spelling (`REDIS_URL`, `DATABASE_URL`,
`LABEL_STUDIO_URL`, `LABEL_STUDIO_API_KEY`, `LABEL_STUDIO_HOST`); all others start with `CARCOND_`.
"""

import itertools
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from carcond.errors import SettingsError

logger = logging.getLogger(__name__)

_SHA256 = re.compile("[0-9a-f]{64}")


def _shared_name(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


def is_web_address(value: str) -> bool:
    """True if the value is an http or https URL with a host."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid bracket or port
        return False


def check_redis_url(value: str) -> str:
    """The same value, if it is an address of Redis.

    Raises:
        ValueError: it is not; the message does not show it, since it may hold a password.
    """
    try:
        is_address = value.startswith(("redis://", "rediss://", "unix://")) and urlsplit(value).port != 0
    except ValueError:  # an invalid bracket or port
        is_address = False
    if not is_address:
        raise ValueError(
            "expected an address like redis://127.0.0.1:6379/0, rediss://HOST:PORT/0 or unix:///PATH; "
            "write / in a password as %2F, and @ as %40"
        )
    return value


def check_views(views: tuple[int, ...]) -> tuple[int, ...]:
    """The same views of a photo, if a network can see them: sides of squares in pixels, from small to large.

    A larger view is seen in tiles of the size of the smallest one, and a smaller one is averaged from its pixels.

    Raises:
        ValueError: they cannot be seen.
    """
    in_range = bool(views) and all(32 <= side <= 1024 for side in views)
    if not in_range or not all(large > small and large % small == 0 for small, large in itertools.pairwise(views)):
        raise ValueError(
            "expected the side of a view in pixels, 32 to 1024, or several like 224+448, each a multiple of the one "
            f"before; got {'+'.join(map(str, views))}"
        )
    return views


def parse_views(text: str) -> tuple[int, ...]:
    """Views of a photo from a text like ``224+448``.

    Raises:
        ValueError: it names none, or some that cannot be seen (see `check_views`).
    """
    sides = [side.strip() for side in text.split("+")]
    if not all(side.isascii() and side.isdigit() for side in sides):
        raise ValueError(f"expected sides in pixels joined by +, like 224+448, got {text!r}")
    return check_views(tuple(map(int, sides)))


def _check_host(value: str) -> str:
    """A host or a host and port, an address of IPv6 in brackets."""
    if value.count(":") > 1 and not value.startswith("["):
        value = f"[{value}]"
    try:
        parts = urlsplit(f"//{value}")
        is_host = bool(parts.hostname) and parts.netloc == value and "@" not in value and parts.port != 0
    except ValueError:  # an invalid bracket or port
        is_host = False
    if not is_host:
        raise ValueError("expected names of hosts like photos.example.com or photos.example.com:9000, without http://")
    return value


class Settings(BaseSettings):
    """All settings of the backend, the worker and the commands."""

    # An empty variable, as Compose files and shell scripts leave it, means the default.
    model_config = SettingsConfigDict(
        env_prefix="CARCOND_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    # Addresses and directories
    label_studio_url: str = Field(
        "http://127.0.0.1:8080",
        validation_alias=_shared_name("LABEL_STUDIO_URL"),
        description="URL at which backend and worker reach Label Studio.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=_shared_name("LABEL_STUDIO_API_KEY"),
        description="Legacy token or personal access token of Label Studio.",
    )
    label_studio_host: str = Field(
        "",
        validation_alias=_shared_name("LABEL_STUDIO_HOST"),
        description="URL of Label Studio in browsers, as in photo addresses. Default: `LABEL_STUDIO_URL`.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=_shared_name("REDIS_URL"),
        description="URL of Redis, which holds the job queue.",
    )
    database_url: str = Field(
        "sqlite:///.carcond/carcond.sqlite3",
        validation_alias=_shared_name("DATABASE_URL"),
        description="SQLAlchemy URL of the loop's database, SQLite or PostgreSQL.",
    )
    models_dir: Path = Field(Path("models"), description="Directory of encoders and model versions.")
    models_url: str = Field(
        "",
        description="fsspec URL of an object store for models, for processes that share no disk.",
    )

    # Authentication, and limits of photo downloads
    basic_auth_user: str = Field(
        "", description="User of HTTP basic authentication. Empty, with the password: no authentication."
    )
    basic_auth_password: SecretStr = Field(SecretStr(""), description="Password of this user.")
    api_tokens: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="Applications that may use the JSON API, as comma-separated name:SHA-256 of the token. "
        "Empty, with no user above: any client.",
    )
    api_photos_per_minute: int = Field(
        300, ge=1, le=1_000_000, description="Maximum photos per minute of each application."
    )
    demo_token: SecretStr = Field(SecretStr(""), description="Token with which the demo calls the JSON API.")
    backend_url: str = Field("", description="URL at which the demo reaches the backend. Default: from `CARCOND_BIND`.")
    photo_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated hosts, besides Label Studio, from which photos may be downloaded: `HOST` for its "
        "ports 80 and 443, `HOST:PORT` for another.",
    )
    max_photo_bytes: int = Field(30_000_000, ge=1_000, description="Maximum size of a photo's file, in bytes.")
    max_photo_pixels: int = Field(60_000_000, ge=10_000, description="Maximum number of pixels of a photo.")
    photo_timeout_s: float = Field(20.0, gt=0, le=600, description="Timeout of a photo's download, in seconds.")
    label_studio_timeout_s: float = Field(
        60.0, gt=0, le=600, description="Timeout of a request to Label Studio, in seconds."
    )

    # Fields of a task's data
    source_field: str = Field("source", description="Field of a task's data with the source of its photo.")
    car_field: str = Field("car", description="Field of a task's data that identifies the car.")

    # The encoder
    backbone: str = Field("efficientnet_b4", description="Backbone, by its name in timm.")
    backbone_weights: str = Field("hub", description="`hub`, or a `.safetensors` or tensors-only `.pth` file.")
    views: Annotated[tuple[int, ...], NoDecode] = Field(
        (224, 448),
        description="Views of a photo that are encoded together, as the sides of squares in pixels: `224`, or "
        "`224+448`, which sees small damage better and takes three times the time.",
    )
    encoder_threads: int = Field(0, ge=0, description="Number of CPU threads of an encoder; 0: all cores.")

    # The query batch
    queue_size: int = Field(20, ge=10, le=1000, description="Number of photos in the queue.")
    candidate_factor: int = Field(2, ge=1, le=100, description="Number of candidates per photo of the queue.")
    slots: int = Field(9, ge=1, le=99, description="Number of slots that the candidates are spread over.")
    cold_start_labels: int = Field(
        10, ge=1, le=1000, description="Number of cold-start labels before uncertainty sampling."
    )
    diversity_until_labels: int = Field(
        50,
        ge=0,
        le=100_000,
        description="Number of labels up to which the queue is spread over clusters of similar photos.",
    )
    prelabel_min_confidence: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Minimum confidence of an answer that a photo opens with; a less sure one is left to the person.",
    )
    debounce_s: float = Field(
        0.1, ge=0, le=60, description="Time that a turn waits for further labels of a burst, in seconds."
    )
    reconcile_every_s: float = Field(
        60.0, ge=1, le=86_400, description="Interval of polling Label Studio for missed events, in seconds."
    )

    # The gate
    gate_margin: float = Field(
        0.02, ge=0, le=0.5, description="Maximum significant drop of a hold-out metric that a new version may have."
    )
    gate_min_photos: int = Field(
        20, ge=2, le=100_000, description="Minimum number of hold-out labels of a task before the gate tests it."
    )

    # Jobs
    publish_connections: int = Field(
        1, ge=1, le=16, description="Maximum number of concurrent writes of predictions to Label Studio."
    )
    job_timeout_s: int = Field(3600, ge=10, description="Time limit of a job other than fine-tuning, in seconds.")

    # Fine-tuning. Automatic fine-tuning is off by default: it takes hours without a GPU, and may improve nothing.
    finetune_growth: float = Field(
        0.0,
        ge=0,
        description="Growth factor of the labels since the last fine-tuning that starts the next, like 2; 0: never.",
    )
    finetune_min_labels: int = Field(
        400, ge=10, description="Minimum number of labelled photos before automatic fine-tuning."
    )
    finetune_config: Path | None = Field(
        None, description="YAML file of training settings, as for `carcond finetune EXPORT --config`."
    )
    finetune_memory_mb: int = Field(0, ge=0, description="Memory limit of a fine-tuning, in MB; 0: no limit.")

    @field_validator("finetune_growth")
    @classmethod
    def _check_growth(cls, value: float) -> float:
        if 0 < value < 1.1:
            raise ValueError(f"expected 0, or a factor of 1.1 or more, got {value}")
        return value

    @field_validator("photo_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(_check_host(host.strip().lower()) for host in value.split(",") if host.strip())
        return value

    @field_validator("views", mode="before")
    @classmethod
    def _split_views(cls, value: object) -> object:
        return parse_views(value) if isinstance(value, str) else value

    @field_validator("api_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [each.strip().partition(":") for each in value.split(",") if each.strip()]
        for name, _, digest in pairs:
            if not name or not _SHA256.fullmatch(digest):
                # The value may be a token itself.
                raise ValueError("expected name:digest, the digest from `printf %s TOKEN | sha256sum`")
        if len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError("expected a name of its own for each token")
        return {name: digest for name, _, digest in pairs}

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        return check_redis_url(value)

    @field_validator("label_studio_url", "label_studio_host", "backend_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        value = value.rstrip("/")
        if not value:
            return value
        if not is_web_address(value):
            # The part before an @ may be a password.
            shown = "...@" + value.rpartition("@")[2] if "@" in value else value
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {shown!r}")
        return value

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        if bool(self.basic_auth_user) != bool(self.basic_auth_password.get_secret_value()):
            raise ValueError("CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD go together: set both or neither")
        return self


FORMER_VARIABLES = {"CARCOND_TYPICAL_PHOTOS": "cold_start_labels", "CARCOND_GROUPED_PHOTOS": "diversity_until_labels"}
"""Deprecated variables of the last release -> the setting that each of them still sets."""


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[setting].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"CARCOND_{setting}".upper()


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a value is malformed or out of range; the message names the setting, and never a secret's value.
    """
    former = {}
    for variable, setting in FORMER_VARIABLES.items():
        if variable in os.environ and variable_name(setting) not in os.environ:
            logger.warning(
                "%s is called %s now; the former name goes with the next release", variable, variable_name(setting)
            )
            former[setting] = os.environ[variable]
    try:
        return Settings(**former)  # type: ignore[arg-type]  # pydantic reads numbers from text
    except ValidationError as error:
        lines = [_describe(details) for details in error.errors(include_url=False)]
        raise SettingsError("settings are not usable: " + "; ".join(lines)) from None


def _describe(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    variable = variable_name(name) if name in Settings.model_fields else name
    # Our own checks show or hide the value; pydantic's are of numbers, which are no secrets.
    came = "" if details["type"] == "value_error" else f", got {details['input']!r}"
    return f"{variable.upper()}: {message}{came}"


@cache
def get_settings() -> Settings:
    """The settings of this process: the environment is read once."""
    return load_settings()
