"""The scheduler's input (events) and output (effects), as plain frozen data.

`generation` numbers the starts of one model. A report about an earlier start is dropped. So a slow
stop or a late exit of an old process is never taken for one of the present process.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from router.errors import RouterError

# ---- events: what happened ---------------------------------------------------------------


class Submitted(Struct, frozen=True):
    """A prediction is to run. Priority is 0 (first) to 2 (last). `waits_out_outages`: it is not
    refused but waits while another program holds the memory that the model needs, or while the
    other machine of the model is away."""

    id: str
    model: str
    owner: str = ""
    priority: int = 1
    waits_out_outages: bool = False


class Withdrawn(Struct, frozen=True):
    """A prediction is no longer wanted."""

    id: str


class Finished(Struct, frozen=True):
    """A run ended, with success or without; its slot is free. `service_s`: how long it took; None
    when that does not count for the model's average (canceled, refused, crashed)."""

    id: str
    model: str
    generation: int
    service_s: float | None = None


class Requeued(Struct, frozen=True):
    """A run has no outcome, and the prediction waits again: its process was found dead before the
    run began, or its remote was lost, where the run may have begun."""

    id: str
    model: str
    generation: int


class Ready(Struct, frozen=True):
    """The process has done its set-up, in `load_s` seconds. `can_suspend`: the driver can suspend
    it; if not, `suspend_refusal` says why."""

    model: str
    generation: int
    load_s: float
    footprint_bytes: int
    can_sleep: bool = False
    can_suspend: bool = False
    suspend_refusal: str = ""


class Staged(Struct, frozen=True):
    """The memory of the process has been copied, so that it can fall asleep quickly. `host_bytes`:
    what the copies take of main memory. `freed_bytes`: what a sleep would free."""

    model: str
    generation: int
    host_bytes: int
    freed_bytes: int


class Slept(Struct, frozen=True):
    """The process is asleep and can be woken. `residue_bytes`: what it still holds of the shared
    memory, as measured; None if that cannot be measured. `freed_bytes`: what it freed.
    `host_bytes`: what its copies take of main memory; 0 when it has none. `suspended_bytes`: what
    the driver has moved to main memory; 0 when it has moved nothing. If it was asked to and did
    not, `suspend_refusal` says why."""

    model: str
    generation: int
    residue_bytes: int | None = 0
    freed_bytes: int = 0
    host_bytes: int = 0
    sleep_s: float = 0.0
    suspended_bytes: int = 0
    suspend_refusal: str = ""


class SleepRefused(Struct, frozen=True):
    """The process did not sleep; with `staging`, it did not let its memory be copied. Nothing has
    changed in it. `again`: a later try may succeed."""

    model: str
    generation: int
    reason: str
    again: bool = False
    staging: bool = False


class SleepFailed(Struct, frozen=True):
    """The process could not be put to sleep. It must be stopped: it may have ended, or have freed
    only a part of its memory."""

    model: str
    generation: int


class Woke(Struct, frozen=True):
    """The process is awake after `wake_s` seconds: it holds its memory and takes predictions."""

    model: str
    generation: int
    wake_s: float
    footprint_bytes: int


class HealthChanged(Struct, frozen=True):
    """The result of the runner's own health check has changed. `problem`: "" when healthy, else
    what is wrong."""

    model: str
    generation: int
    problem: str


class StartFailed(Struct, frozen=True):
    """The process could not be started or its set-up failed; it is gone. `log_tail`: the last lines
    that it printed and that callers may see. `retry_after_s`: a try before that would fail too.
    `location`: the line of the package that failed, for the operator only. `outage`: the model's
    other machine is away for now."""

    model: str
    generation: int
    reason: str
    log_tail: tuple[str, ...] = ()
    retry_after_s: float = 0.0
    location: str = ""
    outage: bool = False


class Died(Struct, frozen=True):
    """A process that was ready is dead or cannot be used any more. It must still be stopped."""

    model: str
    generation: int
    reason: str
    log_tail: tuple[str, ...] = ()


class Stopped(Struct, frozen=True):
    """The process group is gone, and a measurement has shown that its memory is free."""

    model: str
    generation: int


class Measured(Struct, frozen=True):
    """A measurement of memory. `budget_bytes`: what all models together may use, without what
    other programs use. `footprints`: bytes held by each resident model. `host_budget_bytes`: the
    main memory that the copies of all sleepers together may take; None: as before."""

    budget_bytes: int
    footprints: Mapping[str, int] = field(default_factory=dict)
    host_budget_bytes: int | None = None


class Described(Struct, frozen=True):
    """The model's runner has been read: it may run `max_concurrency` predictions at once."""

    model: str
    max_concurrency: int


class Load(Struct, frozen=True):
    """Load this model if no other model has to be evicted for it, for example at the router's
    start. `at_once`: do so even before its back-off is over."""

    model: str
    at_once: bool = False


class Unload(Struct, frozen=True):
    """The operator wants the model's process stopped as soon as it runs nothing. Until then it is
    granted nothing. `again`: it is then started again."""

    model: str
    again: bool = False


class Keep(Struct, frozen=True):
    """With `keep` the model is loaded when there is room, and stays loaded without use. Without
    `keep` it is like any other model. An Unload suspends this until the model is loaded again."""

    model: str
    keep: bool


class RouterStopping(Struct, frozen=True):
    """The router shuts down: run nothing new and stop idle models. With `force` stop all."""

    force: bool = False


class Tick(Struct, frozen=True):
    """Time has passed, and nothing else happened."""


Event = (
    Submitted
    | Withdrawn
    | Finished
    | Requeued
    | Ready
    | HealthChanged
    | Staged
    | Slept
    | SleepRefused
    | SleepFailed
    | Woke
    | StartFailed
    | Died
    | Stopped
    | Measured
    | Described
    | Load
    | Unload
    | Keep
    | RouterStopping
    | Tick
)

# ---- effects: what to do -----------------------------------------------------------------


class Start(Struct, frozen=True):
    """Start the model's process; report Ready or StartFailed."""

    model: str
    generation: int


class Stop(Struct, frozen=True):
    """Stop the process group, wait until its memory is free, and report Stopped."""

    model: str
    generation: int
    reason: str


class Stage(Struct, frozen=True):
    """Copy the memory of the idle process; report Staged or SleepRefused. The copies may take at
    most `limit_bytes` of main memory."""

    model: str
    generation: int
    limit_bytes: int


class Sleep(Struct, frozen=True):
    """Put the idle process to sleep, wait until its memory is free, and report Slept, SleepRefused
    or SleepFailed. All its copies together may take `limit_bytes` of main memory. `hook`: first the
    worker hook frees torch's memory; False if it has done so. `driver`: then the driver suspends
    the process."""

    model: str
    generation: int
    reason: str
    limit_bytes: int = 0
    hook: bool = True
    driver: bool = False


class Wake(Struct, frozen=True):
    """Wake the sleeping process; report Woke, or Died if that fails."""

    model: str
    generation: int


class Run(Struct, frozen=True):
    """Run the prediction on the ready process; report Finished or Requeued."""

    id: str
    model: str
    generation: int


class Interrupt(Struct, frozen=True):
    """Ask the running prediction to stop. Finished is still reported when it ends."""

    id: str
    model: str
    generation: int


class Drop(Struct, frozen=True):
    """The prediction will not run; give its caller `error`."""

    id: str
    error: RouterError


Effect = Start | Stop | Stage | Sleep | Wake | Run | Interrupt | Drop
