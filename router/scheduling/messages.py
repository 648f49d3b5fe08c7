"""What the scheduler is told (events) and what it asks for (effects). Plain frozen data.

`generation` numbers the starts of one model. A report about an earlier start is stale and
is dropped, so a slow stop or a late exit can never be taken for the present process's.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from router.errors import RouterError

# ---- events: what happened ---------------------------------------------------------------


class Submitted(Struct, frozen=True):
    """A prediction wants to run. Priority 0 is first, 2 last."""

    id: str
    model: str
    owner: str = ""
    priority: int = 1


class Withdrawn(Struct, frozen=True):
    """A prediction is no longer wanted."""

    id: str


class Finished(Struct, frozen=True):
    """A run ended, well or badly; its slot is free. `service_s` is None when it says nothing
    about how long this model takes (canceled, refused, crashed)."""

    id: str
    model: str
    generation: int
    service_s: float | None = None


class Requeued(Struct, frozen=True):
    """A run was handed back untouched: the process was found dead before it began."""

    id: str
    model: str
    generation: int


class Ready(Struct, frozen=True):
    """The process's set-up is done."""

    model: str
    generation: int
    load_s: float
    footprint_bytes: int
    can_sleep: bool = False


class Slept(Struct, frozen=True):
    """The process holds none of the shared memory any more, and can be woken."""

    model: str
    generation: int


class SleepFailed(Struct, frozen=True):
    """It could not be put to sleep. It must be stopped: its memory may be half given back."""

    model: str
    generation: int


class Woke(Struct, frozen=True):
    """It holds its memory again and takes predictions."""

    model: str
    generation: int
    wake_s: float
    footprint_bytes: int


class HealthChanged(Struct, frozen=True):
    """What the runner's own health check says has changed: "" when it is well, else why not."""

    model: str
    generation: int
    problem: str


class StartFailed(Struct, frozen=True):
    """The process could not be started or its set-up failed; it is gone. `log_tail`: what it
    printed, as callers may be told. `retry_after_s`: another try before that is of no use."""

    model: str
    generation: int
    reason: str
    log_tail: tuple[str, ...] = ()
    retry_after_s: float = 0.0


class Died(Struct, frozen=True):
    """A process that was ready once is dead or beyond repair. It must still be stopped."""

    model: str
    generation: int
    reason: str
    log_tail: tuple[str, ...] = ()


class Stopped(Struct, frozen=True):
    """The process group is gone and its memory has been seen to be free."""

    model: str
    generation: int


class Measured(Struct, frozen=True):
    """Memory as it is now. `budget_bytes`: what models may use together, other programs' use
    already taken off. `footprints`: bytes held by each resident model."""

    budget_bytes: int
    footprints: Mapping[str, int] = field(default_factory=dict)


class Described(Struct, frozen=True):
    """The model's runner has been read: how many predictions it may run at once."""

    model: str
    max_concurrency: int


class Warm(Struct, frozen=True):
    """Make this model resident if that costs nobody anything (preloading)."""

    model: str


class Draining(Struct, frozen=True):
    """The router is stopping: run nothing new, stop what is idle, and with `force` all."""

    force: bool = False


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = (
    Submitted
    | Withdrawn
    | Finished
    | Requeued
    | Ready
    | HealthChanged
    | Slept
    | SleepFailed
    | Woke
    | StartFailed
    | Died
    | Stopped
    | Measured
    | Described
    | Warm
    | Draining
    | Tick
)

# ---- effects: what to do -----------------------------------------------------------------


class Start(Struct, frozen=True):
    """Start the model's process; answer with Ready or StartFailed."""

    model: str
    generation: int


class Stop(Struct, frozen=True):
    """Stop the process group and see its memory freed; answer with Stopped."""

    model: str
    generation: int
    reason: str


class Sleep(Struct, frozen=True):
    """Put the idle process to sleep and see its memory freed; answer with Slept or
    SleepFailed."""

    model: str
    generation: int
    reason: str


class Wake(Struct, frozen=True):
    """Bring the sleeping process back; answer with Woke, or with Died if it cannot be."""

    model: str
    generation: int


class Run(Struct, frozen=True):
    """Run the prediction on the ready process; answer with Finished or Requeued."""

    id: str
    model: str
    generation: int


class Interrupt(Struct, frozen=True):
    """Ask the running prediction to stop; its Finished still follows."""

    id: str
    model: str
    generation: int


class Drop(Struct, frozen=True):
    """The prediction will not run; tell whoever waits for it."""

    id: str
    error: RouterError


Effect = Start | Stop | Sleep | Wake | Run | Interrupt | Drop
