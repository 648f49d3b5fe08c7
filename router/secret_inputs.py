"""Inputs that a model declares as `cog.Secret`. They are never shown, and not kept longer than
needed.

After the check of a request, a prediction's `inputs` have REDACTED in place of these values, and
the values are in its `secrets`. So code that shows or stores inputs never sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# The same text as `str(cog.Secret)`.
REDACTED = "**********"
# The message for every problem with such an input, as most messages quote the value.
OBJECTION = "does not fit the model's schema; its value is secret and not shown"
# The key of the request's context among the secrets: it may contain credentials, and is kept like
# them. No input can have this name.
CONTEXT = "@context"
# A shorter value is not removed from texts, as it is probably a part of other words.
LEAST_SCRUBBED_CHARS = 4


class SecretValues(dict[str, Any]):
    """Secret inputs by name. None is a value that cannot be read any more. Logs and tracebacks show
    only the names."""

    def __repr__(self) -> str:
        return f"<secret: {', '.join(self)}>"


NO_SECRETS = SecretValues()


class CheckedInputs(dict[str, Any]):
    """Checked values by name. Secret ones are REDACTED, and their values are in `secrets`."""

    secrets: SecretValues = NO_SECRETS


def is_secret(schema: Any) -> bool:
    """Whether a value of this JSON schema, or a part of it, is secret: by Cog's mark, or by
    OpenAPI's marks `writeOnly` and `format: password`."""
    if isinstance(schema, list):
        return any(map(is_secret, schema))
    if not isinstance(schema, Mapping):
        return False
    marked = schema.get("x-cog-secret") is True or schema.get("writeOnly") is True
    return marked or schema.get("format") == "password" or any(map(is_secret, schema.values()))


def split(values: Mapping[str, Any], names: Iterable[str]) -> CheckedInputs:
    """The values, where those of the given names are redacted."""
    checked = CheckedInputs(values)
    secrets = {name: values[name] for name in names if values.get(name) is not None}
    if secrets:
        checked.secrets = SecretValues(secrets)
        checked.update({name: redacted(value) for name, value in secrets.items()})
    return checked


def with_context(secrets: SecretValues, context: Mapping[str, str]) -> SecretValues:
    """The secrets, together with the request's context."""
    return SecretValues({**secrets, CONTEXT: context}) if context else secrets


def opened(
    inputs: Mapping[str, Any], secrets: SecretValues
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The inputs with their secret values, and the context. Only the model may get these."""
    if not secrets:
        return inputs, {}
    return {**inputs, **_of_inputs(secrets)}, secrets.get(CONTEXT, {})


def _of_inputs(secrets: SecretValues) -> dict[str, Any]:
    return {name: value for name, value in secrets.items() if name != CONTEXT}


def redacted(value: Any) -> Any:
    """REDACTED in place of the value; a list keeps its length."""
    return [redacted(v) for v in value] if isinstance(value, list) else REDACTED


def is_lost(secrets: SecretValues) -> bool:
    """Whether a value cannot be read any more. The prediction must not run without it."""
    return any(value is None for value in secrets.values())


def without_secrets(value: Any, secrets: SecretValues) -> Any:
    """The text or JSON value, with REDACTED in place of each secret in it."""
    # The values of a context are not removed: they are often common names, which are parts of other
    # words.
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
