"""What a caller is told when its prediction will not run, with a Retry-After that is computed
from what the model has been measured to take."""

from __future__ import annotations

from router.errors import Canceled, ModelUnavailable, QueueFull, RouterError, ShuttingDown
from router.scheduling.model import Model
from router.scheduling.policy import Policy

# A Retry-After below this only makes clients hammer.
RETRY_AT_LEAST_S = 1.0
# Another program's memory may come back; nothing says when, so this is a guess.
RETRY_NO_ROOM_S = 30.0
# The time that a service manager usually takes to have the router up again.
RETRY_SHUTDOWN_S = 10.0


def refusal(m: Model, owner: str, policy: Policy, now: float) -> RouterError | None:
    """Why one more prediction of this owner is not let in, None when it is."""
    if must_not_wait(m, policy, now):
        return backing_off(m, now)
    if not m.waiting.has_room(owner, policy.queue_limit):
        return queue_full(m, policy, now)
    return None


def must_not_wait(m: Model, policy: Policy, now: float) -> bool:
    """Whether the back-off is one that callers are told of at once.

    A crash is likely to be over with the next start, so a short back-off after one is waited
    out; a set-up that failed will most likely fail again.
    """
    backoff_left_s = m.retry_at - now
    short = m.crashed and backoff_left_s <= policy.wait_out_backoff_s
    return backoff_left_s > 0 and not short


def queue_full(m: Model, policy: Policy, now: float) -> QueueFull:
    """A place is free when the next waiter is taken: the start, then one service time."""
    service_s = service_s_of(m, policy) / m.concurrency
    wait_s = m.wait_for_start_s(now, policy.unknown_load_s) + service_s
    return QueueFull(
        f"Cannot queue: {len(m.waiting)} predictions already wait for '{m.label}'",
        retry_after_s=max(RETRY_AT_LEAST_S, wait_s),
    )


def backing_off(m: Model, now: float) -> ModelUnavailable:
    """The model failed and is not tried again before `retry_at`."""
    return ModelUnavailable(
        f"Cannot start '{m.label}': {m.failure_reason}",
        details={"log_tail": list(m.log_tail)} if m.log_tail else None,
        retry_after_s=max(RETRY_AT_LEAST_S, m.retry_at - now),
    )


def too_large(m: Model, budget_bytes: int) -> ModelUnavailable:
    """Not even alone would the model fit."""
    return ModelUnavailable(
        f"Cannot start '{m.label}': it needs {m.need_bytes >> 20} MiB and models may use "
        f"{budget_bytes >> 20} MiB together",
        retry_after_s=RETRY_NO_ROOM_S,
    )


def shutting_down() -> ShuttingDown:
    """The router is stopping."""
    return ShuttingDown("Cannot predict: the server is stopping", retry_after_s=RETRY_SHUTDOWN_S)


def canceled() -> Canceled:
    """It was withdrawn while it ran, and then its process was found dead before it began."""
    return Canceled("The prediction was canceled")


def service_s_of(m: Model, policy: Policy) -> float:
    """Seconds that one run of the model takes."""
    return m.service_s if m.service_s is not None else policy.unknown_service_s


def eta_s(m: Model, position: int, policy: Policy, now: float) -> float:
    """Seconds until the waiter at this position, 1 for the next, would start: load time left,
    then one service time for every full round ahead of it."""
    rounds = (len(m.running) + position - 1) // m.concurrency
    return m.wait_for_start_s(now, policy.unknown_load_s) + rounds * service_s_of(m, policy)
