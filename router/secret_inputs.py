"""Inputs that a model declares as `cog.Secret`: shown to nobody, kept no longer than needed.

From the check of a request on, a prediction's `inputs` hold REDACTED in their place and its
`secrets` the values, so that whatever shows or stores inputs has nothing to hide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# As `str(cog.Secret)` is.
REDACTED = "**********"
# In place of every objection to such an input: most of them quote it.
OBJECTION = "does not fit the model's schema; what was given is secret and not shown"
# Among the secrets, the request's context: it may hold credentials, and is kept like them. No
# input can have this name.
CONTEXT = "@context"
# A shorter value is likely to be part of something else.
LEAST_SCRUBBED_CHARS = 4


class SecretValues(dict[str, Any]):
    """Secret inputs by name; None as a value where it cannot be had any more. Not shown in logs
    and tracebacks."""

    def __repr__(self) -> str:
        return f"<secret: {', '.join(self)}>"


NO_SECRETS = SecretValues()


class CheckedInputs(dict[str, Any]):
    """Checked values by name, REDACTED for the secret ones, whose values are in `secrets`."""

    secrets: SecretValues = NO_SECRETS


def is_secret(schema: Any) -> bool:
    """Whether a value of this JSON schema, or a part of one, is secret: marked so by Cog, or as
    OpenAPI marks what is never answered."""
    if isinstance(schema, list):
        return any(map(is_secret, schema))
    if not isinstance(schema, Mapping):
        return False
    marked = schema.get("x-cog-secret") is True or schema.get("writeOnly") is True
    return marked or schema.get("format") == "password" or any(map(is_secret, schema.values()))


def split(values: Mapping[str, Any], names: Iterable[str]) -> CheckedInputs:
    """The values, those of these names redacted."""
    checked = CheckedInputs(values)
    secrets = {name: values[name] for name in names if values.get(name) is not None}
    if secrets:
        checked.secrets = SecretValues(secrets)
        checked.update({name: redacted(value) for name, value in secrets.items()})
    return checked


def with_context(secrets: SecretValues, context: Mapping[str, str]) -> SecretValues:
    """The secrets, and the request's context with them."""
    return SecretValues({**secrets, CONTEXT: context}) if context else secrets


def opened(
    inputs: Mapping[str, Any], secrets: SecretValues
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The inputs with their secret values, and the context, for the model alone."""
    if not secrets:
        return inputs, {}
    return {**inputs, **_of_inputs(secrets)}, secrets.get(CONTEXT, {})


def _of_inputs(secrets: SecretValues) -> dict[str, Any]:
    return {name: value for name, value in secrets.items() if name != CONTEXT}


def redacted(value: Any) -> Any:
    """REDACTED in its place; a list keeps its length."""
    return [redacted(v) for v in value] if isinstance(value, list) else REDACTED


def is_lost(secrets: SecretValues) -> bool:
    """Whether a value cannot be had any more: the prediction must not run without it."""
    return any(value is None for value in secrets.values())


def without_secrets(value: Any, secrets: SecretValues) -> Any:
    """The text, or the JSON value, with each secret that it quotes REDACTED."""
    # A context's values are as often names of things, and would be cut out of other words.
    texts = sorted(_texts(list(_of_inputs(secrets).values())), key=len, reverse=True)
    return _without(value, texts)


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value} if len(value) >= LEAST_SCRUBBED_CHARS else set()
    if isinstance(value, Mapping):
        value = list(value.values())
    return set().union(*map(_texts, value)) if isinstance(value, list | tuple) else set()


def _without(value: Any, texts: list[str]) -> Any:
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, REDACTED)
        return value
    if isinstance(value, Mapping):
        return {k: _without(v, texts) for k, v in value.items()}
    return [_without(v, texts) for v in value] if isinstance(value, list | tuple) else value
