"""All settings, read once at start: from `callme.toml` in the folder of the packages, and from
CALLME_… in the environment, which has priority. Only the top of `router` and `router.cli` import
this."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from router.keys.key import split_key
from router.model_settings import ModelSettings
from router.prediction import model_of
from router.scheduling.tunables import Policy
from router.storage.result_store_settings import ResultStoreSettings

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIG_NAME = "callme.toml"
POLICY = Policy()
# 16 characters of hex are 64 bits, which cannot be guessed over a network.
MIN_KEY_CHARS = 16
# The name for programs of this machine.
RESERVED_ID = "local"
ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def default_packages_dir() -> Path:
    """The folder of the packages when no setting names it: the current folder if it contains a
    package or a callme.toml, else the checkout that this code is part of. Code that was installed
    from a wheel is part of none; then it is the current folder."""
    here = Path.cwd()
    for folder in (here, CHECKOUT):
        if (folder / CONFIG_NAME).is_file() or any(folder.glob("*/cog.yaml")):
            return folder
    return here


class Weights(StrEnum):
    """Which weights the packages load. `auto` means full with CUDA, demo without it."""

    AUTO = "auto"
    DEMO = "demo"
    FULL = "full"


class Settings(BaseSettings):
    """The router's settings. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="CALLME_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # it may be a key
    )

    packages_dir: Path = Field(
        default_factory=default_packages_dir,
        description="The folder with the packages; default: the current one if it has any, "
        "else the checkout.",
    )
    state_dir: Path | None = Field(
        None, description="Database, spool and temporary files; default: var/ beside the packages."
    )
    host: str = Field("127.0.0.1", description="Address to listen on (`callme serve`).")
    port: int = Field(7777, ge=1, le=65535, description="Port to listen on (`callme serve`).")
    keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Accepted keys: `id:secret`, `id@holder:secret` or `secret`; in the "
        "environment separated by commas. Keys of one holder see the same predictions and files.",
    )
    admin_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="The same, for keys that see the predictions of all holders, and /status, "
        "/metrics, /events and models' logs.",
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="The most requests a minute of a key without its own limit."
    )
    concurrent_requests: int | None = Field(
        None, ge=1, description="The most requests at a time of a key without its own limit."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of web pages that may call the box from a browser, as https://host; "
        "separated by commas; `*` for all.",
    )
    weights: Weights = Field(Weights.AUTO, description="auto, demo or full.")
    models: dict[str, ModelSettings] = Field({}, description="Per-model settings.")
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Models to load at start, as far as memory allows; `all` for all models."
    )
    max_upload_bytes: int = Field(25 << 20, ge=1, description="Largest request body.")
    max_connections: int = Field(1024, ge=1, description="The most open connections.")
    keep_alive_s: float = Field(
        120.0,
        gt=0,
        description="A connection is closed when unused for this long after a response.",
    )
    queue_limit: int = Field(
        POLICY.queue_limit, ge=1, description="The most predictions that wait for one model."
    )
    sync_limit_s: float = Field(
        85.0, gt=0, description="A synchronous call that takes longer is answered 202."
    )
    prediction_timeout_s: float = Field(
        600.0, gt=0, description="A prediction that runs longer is stopped."
    )
    setup_timeout_s: float = Field(
        600.0, gt=0, description="A set-up that takes longer has failed."
    )
    keep_results_s: float = Field(86400.0, gt=0, description="How long results are kept.")
    idle_to_sleep_s: float = Field(
        POLICY.idle_to_sleep_s,
        gt=0,
        description="A model that is unused for this long gives its memory back.",
    )
    asleep_to_stop_s: float = Field(
        POLICY.asleep_to_stop_s, gt=0, description="A model that sleeps for this long is stopped."
    )
    sleep: Literal["auto", "never", "cpu"] = Field(
        "auto",
        description="Whether models sleep in main memory instead of being stopped. `auto`: those "
        "on a GPU do. `cpu` is for tests: models sleep on a machine without a GPU too.",
    )
    sleep_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Main memory that sleeping models may take together; default: half of what is "
        "free.",
    )
    min_residency_s: float = Field(
        POLICY.min_residency_s,
        ge=0,
        description="A model that has just loaded is not evicted for this long, or for less if it "
        "was quick to load or to wake.",
    )
    unhealthy_to_restart_s: float = Field(
        POLICY.unhealthy_to_restart_s,
        ge=0,
        description="A model is restarted when it runs nothing and its own healthcheck() has "
        "failed for this long.",
    )
    shutdown_grace_s: float = Field(
        10.0,
        ge=0,
        description="When the router stops, running predictions have this long to finish.",
    )
    memory_limit_bytes: int | None = Field(
        None, ge=1, description="Memory that all models together may use; default: what is free."
    )
    memory_reserve_bytes: int = Field(
        512 << 20, ge=0, description="Memory left for other programs."
    )
    default_footprint_bytes: int = Field(
        POLICY.default_footprint_bytes,
        ge=1,
        description="Assumed memory of a model that was never measured.",
    )
    result_store: ResultStoreSettings | None = Field(
        None, description="An S3-compatible store that takes the files of results; default: none."
    )
    allow_private_urls: bool = Field(
        False,
        description="Allow inputs from private addresses, and webhooks to them. For tests and "
        "closed networks.",
    )
    publish: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Where `callme up --public` publishes the box's address: `supabase`, "
        "`command:LINE`, `webhook:URL`; a list in the file, one of them in the environment.",
    )
    supabase_project: str | None = Field(
        None,
        pattern=r"^[a-z0-9]{1,64}$",
        description="The project's reference; default: SUPABASE_PROJECT_ID.",
    )
    supabase_access_token: SecretStr | None = Field(
        None, description="A personal access token; default: SUPABASE_ACCESS_TOKEN."
    )
    supabase_api_url: str = Field(
        "https://api.supabase.com", description="Supabase's Management API."
    )
    tunnel_token: SecretStr | None = Field(
        None, description="For a named tunnel; default: TUNNEL_TOKEN. Without it: a quick tunnel."
    )
    tunnel_url: str | None = Field(
        None,
        pattern=r"^https://[^/\s]+$",
        description="The public address that is set up for the named tunnel, as https://host.",
    )
    replicate_owner: str = Field(
        "callme",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="The owner in `owner/name` for Replicate's clients.",
    )
    replicate_prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="US dollars a second on Replicate by a word of the hardware's name, for the "
        "estimate in `callme usage`; added to those that the router knows.",
    )

    @field_validator("keys", "admin_keys", "preload", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in (p.strip() for p in value.split(",")) if part)
        return value

    @field_validator("publish", mode="before")
    @classmethod
    def _one_target(cls, value: object) -> object:
        return (value,) if isinstance(value, str) and value else value or ()

    @field_validator("keys", "admin_keys")
    @classmethod
    def _are_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Raises ValueError for an empty key, as in `web:$UNSET`, which any caller could give; and
        for an empty holder, who would own all that was made without a key."""
        for key in keys:
            text = key.get_secret_value()
            key_id, holder, secret = split_key(text)
            if len(secret.strip()) < MIN_KEY_CHARS:
                raise ValueError(f"each key must have at least {MIN_KEY_CHARS} characters")
            named, held = ":" in text, "@" in text.partition(":")[0]
            if (named and not key_id) or (named and held and not holder):
                raise ValueError("each key must be id:secret, id@holder:secret or secret")
            if RESERVED_ID in (key_id, holder):
                raise ValueError(f"no key may be called '{RESERVED_ID}'")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """Raises ValueError for an origin with more than scheme, host and port, which a browser
        would never send."""
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(f"'{origin}' must be like https://app.example.com, without path")
        return origins

    def of_model(self, name: str) -> ModelSettings | None:
        """A model's settings. A version without its own has its model's."""
        return self.models.get(name) or self.models.get(model_of(name))

    @property
    def state(self) -> Path:
        """The state folder, resolved."""
        return (self.state_dir or self.packages_dir / "var").resolve()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources by priority: arguments, then the environment, then callme.toml."""
        folder = Path(os.environ.get("CALLME_PACKAGES_DIR") or default_packages_dir())
        toml = TomlConfigSettingsSource(settings_cls, toml_file=folder / CONFIG_NAME)
        return init_settings, env_settings, toml
