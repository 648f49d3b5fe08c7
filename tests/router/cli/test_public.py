"""What `callme up --public` tells the web app of the models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from router.cli.public import models_of
from router.errors import ModelUnavailable
from router.inputs.input_schema import InputSchema

FILE = {"type": "string", "format": "uri"}


def schema(properties: dict[str, Any], *required: str) -> InputSchema:
    """The inputs of a model."""
    inputs = {"type": "object", "properties": properties, "required": list(required)}
    return InputSchema({"components": {"schemas": {"Input": inputs}}})


async def test_each_model_with_the_file_that_it_needs() -> None:
    """Not with one that it can do without, nor with one that the function cannot name. A model
    that cannot be read is left out."""
    known = {
        "caption": schema({"text": {"type": "string"}, "image": FILE}, "text", "image"),
        "translate": schema({"text": {"type": "string"}, "glossary": FILE}, "text"),
        "sound": schema({"größe": FILE}, "größe"),
    }

    async def input_schema(package: str) -> InputSchema:
        if package not in known:
            raise ModelUnavailable("Cannot read it")
        return known[package]

    names = [*known, "broken"]
    context: Any = SimpleNamespace(
        models=names, packages={n: n for n in names}, input_schema=input_schema
    )
    assert await models_of(context) == "caption:image,translate,sound"
