"""Typed settings, read once from the environment and validated.

Names that other programs share keep their usual spelling (`REDIS_URL`, `DATABASE_URL`,
`LABEL_STUDIO_URL`, `LABEL_STUDIO_API_KEY`, `LABEL_STUDIO_HOST`); all others start with `CARCOND_`.
"""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from carcond.errors import SettingsError

_SHA256 = re.compile("[0-9a-f]{64}")


def _shared_name(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


def is_web_address(value: str) -> bool:
    """Whether it is an address of a host by HTTP."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket or a port that is none
        return False


def check_redis_url(value: str) -> str:
    """The same value, if it is an address of Redis.

    Raises:
        ValueError: it is none; the text does not show it, since it may hold a password.
    """
    try:
        is_address = value.startswith(("redis://", "rediss://", "unix://")) and urlsplit(value).port != 0
    except ValueError:  # a bracket or a port that is none
        is_address = False
    if not is_address:
        raise ValueError(
            "expected an address like redis://127.0.0.1:6379/0, rediss://HOST:PORT/0 or unix:///PATH; "
            "write / in a password as %2F, and @ as %40"
        )
    return value


class Settings(BaseSettings):
    """All settings of the backend, the worker and the commands."""

    # An empty variable, as Compose files and shell scripts leave it, means the default.
    model_config = SettingsConfigDict(
        env_prefix="CARCOND_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    # Where things are
    label_studio_url: str = Field(
        "http://127.0.0.1:8080",
        validation_alias=_shared_name("LABEL_STUDIO_URL"),
        description="Where backend and worker reach Label Studio.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=_shared_name("LABEL_STUDIO_API_KEY"),
        description="A legacy token or a personal access token of Label Studio.",
    )
    label_studio_host: str = Field(
        "",
        validation_alias=_shared_name("LABEL_STUDIO_HOST"),
        description="The name under which browsers know Label Studio: photo addresses carry it. Empty: the same.",
    )
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", validation_alias=_shared_name("REDIS_URL"), description="The job queue."
    )
    database_url: str = Field(
        "sqlite:///.carcond/carcond.sqlite3",
        validation_alias=_shared_name("DATABASE_URL"),
        description="What the loop remembers: an address for SQLAlchemy, of SQLite or PostgreSQL.",
    )
    models_dir: Path = Field(Path("models"), description="Encoders and model versions.")
    models_url: str = Field(
        "",
        description="An object store for models, as an address for fsspec, where processes share no disk.",
    )

    # Who may call, and what may be fetched
    basic_auth_user: str = Field("", description="Who may call the backend. Empty, with the password: everybody.")
    basic_auth_password: SecretStr = Field(SecretStr(""), description="Goes with the user.")
    api_tokens: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="Which applications may use the JSON API: name:SHA-256 of its token, with commas between them. "
        "Empty, with no user above: everybody.",
    )
    api_photos_per_minute: int = Field(300, ge=1, le=1_000_000, description="Photos that each application may send.")
    demo_token: SecretStr = Field(SecretStr(""), description="Token of the demo, an application of the JSON API.")
    backend_url: str = Field("", description="Where the demo finds the backend. Empty: where `CARCOND_BIND` says.")
    photo_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts, with commas between them, from which photos may be fetched beside Label Studio."
    )
    max_photo_bytes: int = Field(30_000_000, ge=1_000, description="A larger file is not read.")
    max_photo_pixels: int = Field(60_000_000, ge=10_000, description="A photo of more pixels is not decoded.")
    photo_timeout_s: float = Field(20.0, gt=0, le=600, description="Seconds until a photo counts as out of reach.")
    label_studio_timeout_s: float = Field(
        60.0, gt=0, le=600, description="Seconds until Label Studio counts as out of reach."
    )

    # Fields of a task's data
    source_field: str = Field("source", description="Field of a task's data that says where its photo comes from.")
    car_field: str = Field("car", description="Field of a task's data that says which car its photo shows.")

    # The encoder
    backbone: str = Field("efficientnet_b4", description="timm's name of the network.")
    backbone_weights: str = Field("hub", description="`hub`, or a file: `.safetensors`, or `.pth` of tensors only.")
    encoder_threads: int = Field(0, ge=0, description="Cores that an encoder may use; 0: all.")

    # The queue
    queue_size: int = Field(20, ge=10, le=1000, description="Photos in the queue.")
    candidate_factor: int = Field(2, ge=1, le=100, description="Candidates for each photo of the queue.")
    slots: int = Field(9, ge=1, le=99, description="Slots for the candidates, which take turns.")
    typical_photos: int = Field(
        10, ge=1, le=1000, description="So many labels are made of typical photos before uncertainty counts."
    )
    grouped_photos: int = Field(
        50,
        ge=0,
        le=100_000,
        description="With so many labels, the queue is no longer spread over groups of like photos.",
    )
    debounce_s: float = Field(
        0.3, ge=0, le=60, description="Seconds that a turn waits for further labels of the same burst."
    )
    reconcile_every_s: float = Field(
        60.0, ge=1, le=86_400, description="Seconds after which the worker looks for news that no event told of."
    )

    # The gate
    gate_margin: float = Field(
        0.02, ge=0, le=0.5, description="A version that is worse by more than this, and not by chance, does not serve."
    )
    gate_min_photos: int = Field(
        20, ge=2, le=100_000, description="With fewer hold-out labels of a task the gate does not test it."
    )

    # Work
    publish_connections: int = Field(
        2, ge=1, le=16, description="Predictions written to Label Studio at the same time."
    )
    job_timeout_s: int = Field(3600, ge=10, description="Seconds after which a job is ended; a fine-tuning is not.")

    # Fine-tuning. By itself only when asked for: it takes hours without a GPU, and may bring nothing.
    finetune_growth: float = Field(
        0.0,
        ge=0,
        description="Labels grown by this factor since the last fine-tuning begin the next, like 2; 0: never.",
    )
    finetune_min_labels: int = Field(
        400, ge=10, description="With fewer labelled photos no fine-tuning begins by itself."
    )
    finetune_config: Path | None = Field(
        None, description="YAML file with the training's settings, as for `carcond train --config`."
    )
    finetune_memory_mb: int = Field(
        0, ge=0, description="Memory that a fine-tuning may take, in MB; 0: what the system gives."
    )

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
            return tuple(host.strip().lower() for host in value.split(",") if host.strip())
        return value

    @field_validator("api_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [each.strip().partition(":") for each in value.split(",") if each.strip()]
        for name, _, digest in pairs:
            if not name or not _SHA256.fullmatch(digest):
                # What came may be a token itself.
                raise ValueError("expected name:digest, the digest as `printf %s TOKEN | sha256sum` tells it")
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
            # What stands before an @ may be a password.
            shown = "...@" + value.rpartition("@")[2] if "@" in value else value
            raise ValueError(f"expected an address like http://127.0.0.1:8080, got {shown!r}")
        return value

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        if bool(self.basic_auth_user) != bool(self.basic_auth_password.get_secret_value()):
            raise ValueError("CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD go together: set both or neither")
        return self


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[setting].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"CARCOND_{setting}".upper()


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a value is malformed or out of range; the text names the setting, and never a secret's value.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [_describe(details) for details in error.errors(include_url=False)]
        raise SettingsError("settings are not usable: " + "; ".join(lines)) from None


def _describe(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    variable = variable_name(name) if name in Settings.model_fields else name
    # Our own checks say what came, or hide it; pydantic's are of numbers, which are no secrets.
    came = "" if details["type"] == "value_error" else f", got {details['input']!r}"
    return f"{variable.upper()}: {message}{came}"


@cache
def get_settings() -> Settings:
    """The settings of this process: the environment is read once."""
    return load_settings()
