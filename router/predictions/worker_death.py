"""What becomes of a model's predictions when its worker dies or its remote is lost.

- One that runs fails with `worker_died` (502), also when it is durable. It is not run again.
- One that certainly had not begun (`NotStartedError`) goes back to the head of the queue.
- One that ran on a remote goes back too, if the settings allow a second run (`MayHaveBegunError`).
  After MAX_ATTEMPTS runs in all, or if they do not, it fails with `backend_failed` (502).
- One that waits stays in the queue while at most 10 s of the back-off are left. The first four
  crashes in a row give 1, 2, 4 and 8 s, so it stays. From the fifth on it fails with
  `model_unavailable` (503), or goes to its other target. A success ends the row. A durable one
  without another target stays while its remote is away (`waits_out_outages`).
- When the worker dies during its set-up, those that wait fail so too, or go to their other target.
- While the router shuts down, a durable one is left for the next start, where it runs again. Any
  other fails with `shutting_down` (503).

`router.models.coglet_process` notices the death of a worker, `router.remote.process` the loss of a
remote. `SchedulerLoop._run` and `_report_death` report it to `Predictions` (`finished`,
`handed_back`), which applies the rules below, and to the scheduler as `Died`. The scheduler stops
the process group, starts the model again after the back-off if a prediction waits or the model is
to stay loaded (`Transitions.crash`), and decides on the queue (`refusals.must_not_wait`).

When the router itself was killed, its next start asks `hopeless` of `router.predictions.in_flight`
which durable predictions may run again.
"""

from __future__ import annotations

from router.errors import BackendFailed, ShuttingDown, WorkerDied
from router.prediction import Failure, Outcome, Status

MAX_ATTEMPTS = 3
# The outcome of the last attempt of a prediction that a remote never finishes.
BROKEN_OFF = Outcome(
    Status.FAILED,
    failure=Failure(
        BackendFailed.code, f"The back-end broke off during the last of {MAX_ATTEMPTS} attempts"
    ),
)
# Of a prediction that is not durable, whose worker was ended because the router shuts down.
STOPPED = Failure(ShuttingDown.code, "The server stopped")


def worker_died(outcome: Outcome) -> bool:
    """Whether the worker died during this run."""
    return outcome.failure is not None and outcome.failure.code == WorkerDied.code


def may_begin_again(attempts: int, *, counts: bool) -> bool:
    """Whether a prediction that was handed back may run again. `attempts`: its runs so far.
    `counts`: the last one may have begun, and not because the router shuts down."""
    return not counts or attempts < MAX_ATTEMPTS
