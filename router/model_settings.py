"""Settings of one model: `[models.NAME]` in callme.toml, and `[models.NAME.remote]`."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from router.scheduling.weekly_schedule import WeeklySchedule, parse_schedule

HTTP_URL = re.compile(r"https?://[^\s/]+.*")


class RemoteSettings(BaseModel):
    """`[models.NAME.remote]`: another machine that runs the model."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["cog", "replicate", "modal"] | None = Field(
        None, description="The kind of remote; needed only for `overflow`."
    )
    url: str | list[str] = Field(
        "", description="URL of a server with Cog's or Replicate's API; a list for kind cog."
    )
    model: str = Field(
        "",
        pattern=r"^((deployment:)?\w[\w.-]*/\w[\w.-]*(:\w[\w.-]*)?)?$",
        description="Replicate's owner/name, owner/name:version or deployment:owner/name.",
    )
    key: SecretStr = Field(SecretStr(""), description="Bearer key; for Modal token-id:secret.")
    concurrency: int = Field(4, ge=1, description="Predictions that run there at a time.")
    timeout_s: float = Field(600.0, gt=0, description="A longer prediction is canceled.")
    files_url: str = Field(
        "",
        description="This router's address for replicas on Ray: files over 256 KiB go by URL.",
    )
    repeatable: bool | None = Field(
        None, description="Send again what was cut off; default: yes for cog without a limit."
    )
    requests_per_hour: int | None = Field(
        None,
        ge=0,
        description="The most requests an hour; default: 100 if it is paid, else no limit.",
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """Each URL of `url`, none that is empty."""
        return tuple(u for u in ([self.url] if isinstance(self.url, str) else self.url) if u)

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | list[str]) -> str | list[str]:
        for one in [url] if isinstance(url, str) else url:
            if one and not HTTP_URL.fullmatch(one):
                raise ValueError("must begin with http:// or https:// and a host")
        return url

    @field_validator("files_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not HTTP_URL.fullmatch(url):
            raise ValueError("must begin with http:// or https:// and a host")
        return url.rstrip("/")


class ModelSettings(BaseModel):
    """`[models.NAME]`: settings of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: dict[str, str] = Field(default={}, description="Added to its process's environment.")
    backend: Literal["local", "cog", "replicate", "modal", "overflow"] = Field(
        "local", description="Where it runs; `overflow`: here first, else at its remote."
    )
    remote: RemoteSettings | None = Field(None, description="The other machine that runs it.")
    overflow_after_s: float = Field(
        30.0, gt=0, description="With `overflow`: the longest wait here before the remote."
    )
    sleep: Literal["auto", "never"] = Field(
        "auto", description="`never`: it is always stopped and never put to sleep."
    )
    idle_to_sleep_s: float | None = Field(None, gt=0, description="As the general setting.")
    asleep_to_stop_s: float | None = Field(None, gt=0, description="As the general setting.")
    keep_loaded: str = Field(
        "",
        description="When it stays loaded without use: `always`, or hours of the week such as "
        "`Mon-Fri 08:00-19:00, Sat 10:00-14:00`, in this machine's time zone.",
    )
    priority: int = Field(
        1,
        ge=0,
        le=2,
        description="0, 1 or 2: which model gets memory first, and which keeps it longest.",
    )
    queue_limit: int | None = Field(
        None, ge=1, description="As the general setting, for this model."
    )
    prediction_timeout_s: float | None = Field(
        None, gt=0, description="As the general setting, for this model."
    )
    canary: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9_-]{0,62}@[a-z0-9][a-z0-9_.-]{0,62})?$",
        description="Another version of it, `NAME@VERSION`: a folder of this name.",
    )
    share: float = Field(0.1, ge=0, le=1, description="Of its requests, for its canary.")

    @field_validator("keep_loaded")
    @classmethod
    def _is_schedule(cls, text: str) -> str:
        if text:
            parse_schedule(text)
        return text

    @property
    def schedule(self) -> WeeklySchedule | None:
        """When it stays loaded; None when it never does."""
        return parse_schedule(self.keep_loaded) if self.keep_loaded else None

    @property
    def remote_kind(self) -> str:
        """`cog`, `replicate` or `modal`; "" for a model that runs only here."""
        if self.backend == "local" or self.remote is None:
            return ""
        return self.remote.kind or self.backend

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.backend == "local":
            return self
        if self.remote is None:
            raise ValueError("needs a [remote], since its backend is not local")
        if self.remote_kind == "overflow":
            raise ValueError("needs remote.kind: cog, replicate or modal")
        if self.keep_loaded and self.backend != "overflow":
            raise ValueError("has keep_loaded, which is for models that run on this machine")
        if self.backend not in ("overflow", self.remote_kind):
            raise ValueError(f"has backend {self.backend} and remote.kind {self.remote_kind}")
        if self.remote_kind != "replicate" and not self.remote.urls:
            raise ValueError("needs remote.url")
        if self.remote_kind != "cog" and len(self.remote.urls) > 1:
            raise ValueError("has several URLs in remote.url, which only kind cog may have")
        if self.remote_kind != "cog" and self.remote.files_url:
            raise ValueError("has remote.files_url, which only kind cog may have")
        limited = self.remote.requests_per_hour is not None
        if self.remote.repeatable and (self.remote_kind != "cog" or limited):
            # What is sent again is not counted.
            raise ValueError("has remote.repeatable, which needs kind cog and no requests_per_hour")
        if self.remote_kind == "replicate" and not self.remote.model:
            raise ValueError("needs remote.model: owner/name")
        return self
