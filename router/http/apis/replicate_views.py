"""Predictions, models, versions and files in the shapes of Replicate's API.

Where the documentation and the official clients differ, the shape is what the clients need. They
do not know the status `aborted` (one polls indefinitely, the other refuses the body), so it is
shown as `canceled`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from router.errors import Canceled
from router.http.context import Context
from router.http.prediction_views import public_inputs, timestamp
from router.models.catalog import does_stream, yields_files
from router.prediction import Json, JsonPath, OutputFile, Prediction, Status
from router.predictions.output_reader import with_values
from router.storage.store import StoredFile

STREAM_PATH = "/v1/streams/{id}"
# The npm client treats a stream under /v1/files/ as a stream of files, and each of its elements
# as a file's URL.
FILE_STREAM_PATH = "/v1/files/streams/{id}"

# Replicate uses this in place of a version that it does not show.
UNKNOWN_VERSION = "hidden"


def utc(seconds: float | None) -> str | None:
    """Return the time in ISO 8601 format with Z, as Replicate writes it."""
    text = timestamp(seconds)
    return text.replace("+00:00", "Z") if text else None


async def replicate_view(context: Context, p: Prediction, base_url: str) -> dict[str, Any]:
    """Return a prediction. All its URLs are under `base_url`, those of output files too."""
    p = await context.predictions.links.with_output_files(p)
    return prediction_body(context, p, base_url)


async def webhook_view(context: Context, p: Prediction) -> dict[str, Any]:
    """Return the body of a webhook: the prediction as Replicate's API shows it.

    When the prediction was made with Cog's API, its output is as Cog's API shows it.
    """
    if p.namespace:
        return await replicate_view(context, p, p.base_url)
    return prediction_body(context, await context.predictions.links.with_data_uris(p), p.base_url)


def prediction_body(context: Context, p: Prediction, base_url: str) -> dict[str, Any]:
    """Return a prediction in Replicate's shape. A data: URI in its output stays unchanged."""
    failure = p.failure if p.failure and p.failure.code != Canceled.code else None
    url = f"{base_url}/v1/predictions/{p.id}"
    urls = {"get": url, "cancel": f"{url}/cancel"}
    schema = context.schemas.openapi.get(p.model, {})
    if does_stream(schema):
        path = (FILE_STREAM_PATH if yields_files(schema) else STREAM_PATH).format(id=p.id)
        urls["stream"] = f"{base_url}{path}?token={stream_token(context, p.id)}"
    return {
        "id": p.id,
        "model": f"{p.namespace or context.replicate_owner}/{p.model}",
        "version": context.schemas.versions.get(p.model, UNKNOWN_VERSION),
        "input": public_inputs(p),
        "output": with_urls(context, p.id, p.output, p.output_files, base_url),
        "logs": p.logs,
        "error": failure.message if failure else None,
        **({"error_code": failure.code} if failure else {}),  # for another router
        "status": Status.CANCELED if p.status is Status.ABORTED else p.status,
        "source": "api",
        "data_removed": False,
        "created_at": utc(p.created_at),
        "started_at": utc(p.started_at),
        "completed_at": utc(p.completed_at),
        "metrics": p.metrics,
        "urls": urls,
    }


def with_urls(
    context: Context,
    prediction_id: str,
    output: Json,
    files: Sequence[OutputFile],
    base_url: str,
    *,
    at: JsonPath = (),
) -> Json:
    """Return the output with the URLs of these files in their places.

    `at` is the place of `output` in the prediction's whole output.
    """
    path = context.predictions.outputs.url_path
    return with_values(
        output, [(f.place[len(at) :], base_url + path(prediction_id, f)) for f in files]
    )


def stream_token(context: Context, prediction_id: str) -> str:
    """Return the token, 128 bits, that makes a stream's URL unguessable.

    Replicate's JavaScript client and a browser's EventSource send no key when they request it.
    """
    message = f"stream\0{prediction_id}".encode()
    digest = hmac.new(context.webhook_secret.encode(), message, hashlib.sha256)
    return digest.hexdigest()[:32]


def model_view(context: Context, name: str, owner: str, base_url: str) -> dict[str, Any]:
    """Return a model and its one version, which is null while its schema is not known."""
    return {
        "url": f"{base_url}/models/{name}",
        "owner": owner,
        "name": name,
        "description": _description(context.schemas.openapi.get(name)),
        "visibility": "private",
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": version_view(context, name),
    }


def version_view(context: Context, name: str) -> dict[str, Any] | None:
    """Return the version that is served. Its id is a hash of the model's schema."""
    if name not in context.schemas.versions:
        return None
    return {
        "id": context.schemas.versions[name],
        "created_at": utc(context.started_at),
        "cog_version": context.cog_version,
        "openapi_schema": context.schemas.openapi[name],
    }


def _description(schema: Mapping[str, Any] | None) -> str | None:
    text = (schema or {}).get("info", {}).get("description")
    return str(text) if text else None


def file_view(file: StoredFile, base_url: str) -> dict[str, Any]:
    """Return an uploaded file. Its URL may be given as an input of a prediction."""
    return {
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": file.size_bytes,
        "etag": file.sha256,
        "checksums": {"sha256": file.sha256},
        "metadata": file.metadata,
        "created_at": utc(file.created_at),
        "expires_at": utc(file.expires_at),
        "urls": {"get": f"{base_url}/v1/files/{file.id}"},
    }
