"""`[result_store]`: the S3-compatible store that takes the files of results."""

from __future__ import annotations

import re
from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

# Seven days: what S3 allows for a signed URL.
MAX_URL_LIFETIME_S = timedelta(days=7).total_seconds()
ENDPOINT = re.compile(r"(https?://[^\s/@?#]+(/[^\s@?#]*)?)?")


class ResultStoreSettings(BaseModel):
    """Where the files of results are moved to, and how clients get them from there."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bucket: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$", description="A bucket that exists."
    )
    endpoint: str = Field(
        "",
        pattern=f"^{ENDPOINT.pattern}$",
        description="The store's address, as https://host; default: Amazon's for the region.",
    )
    region: str = Field(
        "us-east-1", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The bucket's region."
    )
    prefix: str = Field(
        "",
        max_length=200,
        pattern=r"^[A-Za-z0-9_./-]*$",
        description="The folder in the bucket; in it, each box makes one of its own.",
    )
    access_key_id: str = Field("", description="The key's id; default: AWS_ACCESS_KEY_ID.")
    secret_access_key: SecretStr = Field(
        SecretStr(""), description="The key's secret; default: AWS_SECRET_ACCESS_KEY."
    )
    signed_urls: bool = Field(
        True,
        description="A file's link redirects to a signed URL of the store; if false, the router "
        "sends the file itself.",
    )
    url_lifetime_s: float = Field(
        3600.0, ge=1, le=MAX_URL_LIFETIME_S, description="How long a signed URL works."
    )

    @model_validator(mode="after")
    def _has_whole_key(self) -> ResultStoreSettings:
        """Raises ValueError when only one half of the key is set."""
        if bool(self.access_key_id) != bool(self.secret_access_key.get_secret_value()):
            raise ValueError("needs both access_key_id and secret_access_key, or neither")
        return self
