"""What the scheduler is told (events) and what it asks for (effects). Plain frozen data.

`generation` numbers the starts of one model. A report about an earlier start is stale and
is dropped, so a slow stop or a late exit can never be taken for the present process's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.errors import RouterError

# ---- events: what happened ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A prediction wants to run. Priority 0 is first, 2 last."""

    id: str
    model: str
    owner: str = ""
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A prediction is no longer wanted."""

    id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run ended, well or badly; its slot is free. `service_s` is None when it says nothing
    about how long this model takes (canceled, refused, crashed)."""

    id: str
    model: str
    generation: int
    service_s: float | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """A run was handed back untouched: the process was found dead before it began."""

    id: str
    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The process's set-up is done."""

    model: str
    generation: int
    load_s: float
    footprint_bytes: int
    can_sleep: bool = False


@dataclass(frozen=True, slots=True)
class Slept:
    """The process holds none of the shared memory any more, and can be woken."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class SleepFailed:
    """It could not be put to sleep. It must be stopped: its memory may be half given back."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Woke:
    """It holds its memory again and takes predictions."""

    model: str
    generation: int
    wake_s: float
    footprint_bytes: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The process could not be started or its set-up failed; it is gone. `last_words`: what it
    printed, as callers may be told."""

    model: str
    generation: int
    reason: str
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """A process that was ready once is dead or beyond repair. It must still be stopped."""

    model: str
    generation: int
    reason: str
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopped:
    """The process group is gone and its memory has been seen to be free."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory as it is now. `budget_bytes`: what models may use together, other programs' use
    already taken off. `footprints`: bytes held by each resident model."""

    budget_bytes: int
    footprints: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """The model's runner has been read: how many predictions it may run at once."""

    model: str
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class Warm:
    """Make this model resident if that costs nobody anything (preloading)."""

    model: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The router is stopping: run nothing new, stop what is idle, and with `force` all."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Submitted
    | Withdrawn
    | Finished
    | Requeued
    | Ready
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


@dataclass(frozen=True, slots=True)
class Start:
    """Start the model's process; answer with Ready or StartFailed."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the process group and see its memory freed; answer with Stopped."""

    model: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put the idle process to sleep and see its memory freed; answer with Slept or
    SleepFailed."""

    model: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Bring the sleeping process back; answer with Woke, or with Died if it cannot be."""

    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Run:
    """Run the prediction on the ready process; answer with Finished or Requeued."""

    id: str
    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask the running prediction to stop; its Finished still follows."""

    id: str
    model: str
    generation: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The prediction will not run; tell whoever waits for it."""

    id: str
    error: RouterError


Effect = Start | Stop | Sleep | Wake | Run | Interrupt | Drop
