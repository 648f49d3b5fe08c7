"""Makes a prediction from a request, in the same way for every API."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request

from router.http.auth import caller_of
from router.http.context import context_of
from router.http.prediction_params import deadline_at, priority
from router.http.request_log import TRACE
from router.inputs.input_schema import InputSchema
from router.keys.key import Caller
from router.models.catalog import Package
from router.prediction import Callback, FileRef, Prediction, new_id
from router.secret_inputs import CheckedInputs, with_context

# Checked values, and files in the spool.
Inputs = tuple[CheckedInputs, tuple[FileRef, ...]]
ReadInputs = Callable[[InputSchema, Caller], Awaitable[Inputs]]
NO_CONTEXT: Mapping[str, str] = {}


async def new_prediction(
    request: Request,
    package: Package,
    read_inputs: ReadInputs,
    *,
    durable: bool,
    prediction_id: str | None = None,
    digest: str = "",
    callback: Callback | None = None,
    runner_context: Mapping[str, str] = NO_CONTEXT,
    namespace: str = "",
    base_url: str = "",
    exact: bool = False,
) -> Prediction:
    """Return the prediction that the request asks for, of the version that serves it; with `exact`
    of `package` itself.

    The caller must pass it to `Predictions.create` next, because its files are in the spool. Its
    deadline and priority come from the request's headers, its owner is the request's caller.
    The headers are checked before an input is read. Raises what `read_inputs` raises,
    MalformedRequest when a header is wrong, and ModelUnavailable when the model's schema cannot
    be read.
    """
    now = time.time()
    deadline, rank = deadline_at(request, now), priority(request)
    caller = caller_of(request)
    context = context_of(request)
    if not exact:
        package = context.serving(package)
    input_schema = await context.input_schema(package)
    inputs, files = await read_inputs(input_schema, caller)
    return Prediction(
        id=prediction_id or new_id(),
        model=package.name,
        inputs=inputs,
        secrets=with_context(inputs.secrets, runner_context),
        files=files,
        created_at=now,
        deadline_at=deadline,
        owner=caller.owner,
        priority=rank,
        durable=durable,
        digest=digest,
        callback=callback,
        namespace=namespace,
        base_url=base_url,
        read_at=time.time() if files else 0.0,
        trace=request.scope.get(TRACE),
    )
