"""The errors that callers get when a prediction will not run. Their Retry-After is computed from
the model's measured times."""

from __future__ import annotations

from router.errors import Canceled, ModelUnavailable, QueueFull, RouterError, ShuttingDown
from router.scheduling.model import Model
from router.scheduling.tunables import Policy

# A shorter Retry-After would only make clients send too many requests.
RETRY_AT_LEAST_S = 1.0
# Another program may free its memory. When is not known, so this is a guess.
RETRY_NO_ROOM_S = 30.0
# The time that a service manager usually takes to start the router again.
RETRY_SHUTDOWN_S = 10.0


def refusal(
    m: Model, owner: str, policy: Policy, now: float, *, waits_out_outages: bool = False
) -> RouterError | None:
    """Why one more prediction of this owner is refused; None when it is accepted."""
    if must_not_wait(m, policy, now, waits_out_outages=waits_out_outages):
        return backing_off(m, now)
    limit = policy.queue_limit if m.own.queue_limit is None else m.own.queue_limit
    if not m.waiting.has_room(owner, limit):
        return queue_full(m, policy, now)
    return None


def must_not_wait(m: Model, policy: Policy, now: float, *, waits_out_outages: bool = False) -> bool:
    """Whether predictions are refused at once during the back-off.

    A crash will probably not happen again after the next start, so predictions wait for the end
    of a short back-off after a crash. A set-up that failed will most likely fail again.
    While the other machine of a model is away, predictions with `waits_out_outages` wait.
    """
    if waits_out_outages and m.outage:
        return False
    backoff_left_s = m.retry_at - now
    short = m.crashed and backoff_left_s <= policy.wait_out_backoff_s
    return backoff_left_s > 0 and not short


def queue_full(m: Model, policy: Policy, now: float) -> QueueFull:
    """The queue is full. A place becomes free when the next waiter is granted a slot: after the
    start of the model and one service time."""
    service_s = service_s_of(m, policy) / m.concurrency
    wait_s = m.wait_for_start_s(now, policy.unknown_load_s) + service_s
    return QueueFull(
        f"Cannot queue: {len(m.waiting)} predictions already wait for '{m.label}'",
        retry_after_s=max(RETRY_AT_LEAST_S, wait_s),
    )


def backing_off(m: Model, now: float) -> ModelUnavailable:
    """The model has failed, and is not started again before `retry_at`."""
    return ModelUnavailable(
        f"Cannot start '{m.label}': {m.failure_reason}",
        details={"log_tail": list(m.log_tail)} if m.log_tail else None,
        retry_after_s=max(RETRY_AT_LEAST_S, m.retry_at - now),
    )


def too_large(m: Model, budget_bytes: int) -> ModelUnavailable:
    """The model would not fit in memory even if it were the only one."""
    return ModelUnavailable(
        f"Cannot start '{m.label}': it needs {m.need_bytes >> 20} MiB and models may use "
        f"{budget_bytes >> 20} MiB together",
        retry_after_s=RETRY_NO_ROOM_S,
    )


def shutting_down() -> ShuttingDown:
    """The router is stopping."""
    return ShuttingDown("Cannot predict: the server is stopping", retry_after_s=RETRY_SHUTDOWN_S)


def canceled() -> Canceled:
    """The prediction was withdrawn after its grant, and its run did not begin."""
    return Canceled("The prediction was canceled")


def service_s_of(m: Model, policy: Policy) -> float:
    """Seconds that one run of the model takes: measured, else assumed."""
    return m.service_s if m.service_s is not None else policy.unknown_service_s


def eta_s(m: Model, position: int, policy: Policy, now: float) -> float:
    """Seconds until the waiter at this position (1 is next) would start: the rest of the load time,
    then one service time for every full round before it."""
    rounds = (len(m.running) + position - 1) // m.concurrency
    return m.wait_for_start_s(now, policy.unknown_load_s) + rounds * service_s_of(m, policy)
