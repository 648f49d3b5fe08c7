"""Reads what `callme predict` is given on its command line, as `cog run` reads it."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from router.cli.common import fail

LONGEST_PATH = 1024
STDIN = "-"
Pair = tuple[str, str]


def read_pairs(given: Sequence[str]) -> list[Pair]:
    """The pairs of `name=value` and `name=@path`; double quotes around a value are left out. Ends
    with code 2 when a text is neither, or there is no such file."""
    pairs = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"Cannot read -i '{text}': it must be name=value or name=@path", code=2)
        if len(value) > 1 and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        if value.startswith("@") and not Path(value[1:]).is_file():
            fail(f"Cannot read -i '{text}': there is no file '{value[1:]}'", code=2)
        pairs.append((name, value))
    return pairs


def read_json(given: str) -> dict[str, Any]:
    """The inputs in a JSON object: in the text itself, in the file of `@path`, or on stdin (`-` or
    `@-`). A value `@path` becomes the file. Ends with code 2 when it cannot be read."""
    source = given.removeprefix("@")
    if source == STDIN:
        text = sys.stdin.read()
    elif source is given:
        text = given
    else:
        text = _read(source, "--json").decode(errors="replace")
    try:
        inputs = json.loads(text)
    except ValueError as error:
        fail(f"Cannot read --json: it is not JSON: {error}", code=2)
    if not isinstance(inputs, dict):
        fail('Cannot read --json: it must be an object, such as \'{"text": "hello"}\'', code=2)
    return {
        name: _data_uri(value[1:], name)
        if isinstance(value, str) and value.startswith("@")
        else value
        for name, value in inputs.items()
    }


def read_variables(given: Sequence[str]) -> dict[str, str]:
    """The environment variables of `NAME=value`; `NAME` alone passes on one that is set here. Ends
    with code 2 when it is neither."""
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            fail(
                f"Cannot read -e '{text}': it must be NAME=value, or a variable that is set", code=2
            )
        variables[name] = value if equals else os.environ[name]
    return variables


def forgotten_at(inputs: Sequence[Pair]) -> str:
    """A question about the first value that is the path of a file, and "" when there is none."""
    for name, value in inputs:
        if len(value) < LONGEST_PATH and Path(value).is_file():
            return f"Did you mean the file? -i {shlex.quote(f'{name}=@{value}')}"
    return ""


def _data_uri(path: str, name: str) -> str:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    content = _read(path, f"--json's '{name}'")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        fail(f"Cannot read {what}: {path}: {error.strerror}", code=2)
