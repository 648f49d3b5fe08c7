"""A failure without what it quotes of a prediction's secret inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from router.domain.prediction import Failure
from router.domain.secret_inputs import OBJECTION, SecretValues, without_secrets


def scrubbed(failure: Failure, secrets: SecretValues) -> Failure:
    """The failure as it may be shown and kept: a model's server that objects to an input quotes
    it, however short it is, and an exception may."""
    failure = _without_objections(failure, secrets)
    message = without_secrets(failure.message, secrets)
    return replace(failure, message=message, details=without_secrets(failure.details, secrets))


def _without_objections(failure: Failure, secrets: SecretValues) -> Failure:
    problems = (failure.details or {}).get("problems")
    if not isinstance(problems, list) or not any(_is_about(p, secrets) for p in problems):
        return failure
    kept = [{**p, "message": OBJECTION} if _is_about(p, secrets) else p for p in problems]
    message = f"Cannot use '{kept[0].get('input')}': {kept[0].get('message')}"
    return replace(failure, message=message, details={**(failure.details or {}), "problems": kept})


def _is_about(problem: Any, secrets: SecretValues) -> bool:
    return isinstance(problem, dict) and problem.get("input") in secrets
