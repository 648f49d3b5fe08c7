"""Makes what works behind the HTTP APIs: all objects are created and connected here, started, and
stopped in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from router.backends import LOCAL, Backends
from router.clock import SystemClock
from router.disk import Disk, clear_temp, locked, open_disk, private_errors
from router.http.apis.replicate_views import webhook_view
from router.http.context import Context
from router.inputs.fetch import BoundedFetcher, UrlFetcher
from router.inputs.file_uploads import Uploads
from router.inputs.model_schemas import ModelSchemas
from router.inputs.request_inputs import RequestInputs
from router.models.catalog import Package, read_package
from router.models.coglet_process import CogProcess
from router.models.driver_client import DriverClient
from router.models.memory import GpuMemory, copies_budget_bytes, hardware_name
from router.models.process_interface import Memory, Process
from router.models.process_options import ProcessOptions
from router.models.schemas import Description
from router.observability.events import EventStream
from router.observability.facts import Facts
from router.observability.metrics import PrometheusMetrics
from router.observability.traces import Traces
from router.prediction import Prediction, model_of
from router.predictions.lifecycle import Predictions
from router.predictions.operator_commands import ModelCommands
from router.predictions.output_files import Outputs
from router.predictions.remote_files import RemoteFiles
from router.predictions.replicate_prices import price_per_s
from router.predictions.result_mover import ResultMover
from router.predictions.scheduler_loop import Jobs, SchedulerLoop
from router.predictions.usage import Usage
from router.predictions.versions import Canary, Versions
from router.predictions.webhook_sender import HttpWebhookSender
from router.predictions.webhooks import Webhooks
from router.preload import prepare
from router.scheduling.messages import Described
from router.scheduling.model import Phase
from router.scheduling.scheduler import OwnPolicy, Policy, Scheduler
from router.settings import Settings
from router.shutdown import Shutdown

log = logging.getLogger(__name__)
# Copies of a model may have grown by this much since the last ones: caches of cuDNN and the like.
GROWTH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics, the event stream and traces, and `facts`, which they listen to. `traces`: None when
    the environment names no receiver of traces."""

    metrics: PrometheusMetrics
    events: EventStream
    facts: Facts
    traces: Traces | None = None


@contextlib.asynccontextmanager
async def running(
    settings: Settings, backends: Backends, memory: Memory, telemetry: Telemetry, shutdown: Shutdown
) -> AsyncIterator[Context]:
    """Start everything that runs in the background, and stop it in reverse order at the end."""
    with locked(settings.state):
        with private_errors():
            clear_temp(settings.state)
        disk = open_disk(settings.state)
        schemas = ModelSchemas(backends.describe)
        shutdown.reset()
        driver = _driver(settings, memory)
        remote_files = RemoteFiles(disk.spool, disk.secret, SystemClock(), telemetry.facts)
        make_loop = partial(
            _make_loop,
            *(settings, backends, memory, schemas),
            driver=driver,
            telemetry=telemetry,
            remote_files=remote_files,
        )
        context = _make_context(
            *(settings, backends, make_loop, schemas),
            disk=disk,
            remote_files=remote_files,
            telemetry=telemetry,
            shutdown=shutdown,
            hardware=hardware_name(memory),
        )
        loop = context.loop
        schemas.on_described(partial(note_concurrency, backends, loop))
        telemetry.metrics.watch(tuple(backends.scheduled), loop.snapshot)
        loop.open()
        # First the webhooks of an earlier run, before new results are added to the outbox.
        await context.webhooks.open()
        resumed = await context.predictions.open()
        disk.store.remove_others(p.id for p in resumed)
        received = remote_files.open({p.id for p in resumed})
        kept = [f.ref() for f in await context.uploads.open()]
        disk.spool.remove_unreferenced([*kept, *received, *(f for p in resumed for f in p.files)])
        disk.outputs.remove_unowned(await disk.store.ended_ids())
        if (mover := context.predictions.outputs.mover) is not None:
            mover.open()
        disk.watch.open()
        preparing = asyncio.create_task(prepare(context, settings))
        saving = asyncio.create_task(context.usage.run())
        try:
            yield context
        finally:
            shutdown.begin()
            preparing.cancel()
            saving.cancel()
            await disk.watch.close()
            await loop.close(settings.shutdown_grace_s)
            if driver is not None:
                await driver.close()
            await context.predictions.close()
            if mover is not None:
                await mover.close()
            await context.uploads.close()
            await context.webhooks.close()
            await context.usage.close()
            await disk.database.close()


def _make_context(
    settings: Settings,
    backends: Backends,
    make_loop: Callable[[Jobs], SchedulerLoop],
    schemas: ModelSchemas,
    *,
    disk: Disk,
    remote_files: RemoteFiles,
    telemetry: Telemetry,
    shutdown: Shutdown,
    hardware: str,
) -> Context:
    async def render(p: Prediction) -> dict[str, Any]:
        return await webhook_view(context, p)

    clock = SystemClock()
    keep_s = settings.keep_results_s
    database, store, spool = disk.database, disk.store, disk.spool
    sender = HttpWebhookSender(disk.secret, allow_private=settings.allow_private_urls)
    outputs = Outputs(disk.outputs, disk.secret, _make_mover(settings, disk))
    webhooks = Webhooks(store, database, sender, clock, render, local=outputs.reader.local)
    fetcher = BoundedFetcher(UrlFetcher(spool, allow_private=settings.allow_private_urls))
    predictions = Predictions(
        *(make_loop, store, spool, clock, webhooks),
        time_limit_s=settings.prediction_timeout_s,
        time_limits_s={
            name: own.prediction_timeout_s
            for name in backends.packages
            if (own := settings.of_model(name)) and own.prediction_timeout_s is not None
        },
        keep_results_s=keep_s,
        facts=telemetry.facts,
        rules=backends.rules,
        outputs=outputs,
    )
    find_output = predictions.links.file_of_url
    uploads = Uploads(database, spool, fetcher, clock, keep_s, find_output=find_output)
    context = Context(
        packages=backends.packages,
        left_out=backends.left_out,
        loop=predictions.loop,
        shutdown=shutdown,
        predictions=predictions,
        request_inputs=RequestInputs(spool, uploads, settings.max_upload_bytes),
        files=spool,
        schemas=schemas,
        max_upload_bytes=settings.max_upload_bytes,
        sync_limit_s=settings.sync_limit_s,
        started_at=clock.time(),
        started_at_monotonic=clock.monotonic(),
        uploads=uploads,
        remote_files=remote_files,
        model_commands=_make_model_commands(settings, backends, predictions.loop, schemas),
        webhooks=webhooks,
        webhook_secret=disk.secret,
        replicate_owner=settings.replicate_owner,
        cog_version=version("cog"),
        hardware=hardware,
        usage=Usage(disk.usage, clock, telemetry.facts, runs_here=backends.runs_here),
        replicate_price_per_s=price_per_s(hardware, settings.replicate_prices),
        metrics=telemetry.metrics.exposition,
        events=telemetry.events,
        keyed_digest=disk.box_key.digest,
        backend_of=backends.kind,
        problems=disk.watch.problems,
        versions=_make_versions(settings, backends, predictions.loop, schemas, telemetry.facts),
    )
    return context


def _make_mover(settings: Settings, disk: Disk) -> ResultMover | None:
    if settings.result_store is None:
        return None
    from router.storage.result_store import ResultStore  # noqa: PLC0415 - it takes 10 MB of memory

    # Of this state folder: several boxes may have one bucket, and each deletes what it does not
    # know in its own folder.
    folder = hmac.new(disk.secret.encode(), b"result store", hashlib.sha256).hexdigest()[:16]
    results = ResultStore(settings.result_store, folder)
    return ResultMover(disk.outputs, results, disk.store)


def _make_versions(
    settings: Settings,
    backends: Backends,
    loop: SchedulerLoop,
    schemas: ModelSchemas,
    facts: Facts,
) -> Versions:
    def is_usable(version: str) -> bool:
        model = loop.scheduler.models[version]
        return bool(schemas.known(version) and model.phase is not Phase.FAILED)

    canaries = {
        name: Canary(own.canary, own.share)
        for name, own in settings.models.items()
        if own.canary in backends.packages
        and name in backends.packages
        and name == model_of(own.canary)
    }
    return Versions(settings.state, canaries, is_usable, facts)


def _make_model_commands(
    settings: Settings, backends: Backends, loop: SchedulerLoop, schemas: ModelSchemas
) -> ModelCommands:
    def read(model: str) -> Package:
        old = backends.packages[model]
        return read_package(old.folder, old.added_env, old.name)

    return ModelCommands(
        schemas,
        is_local=lambda model: backends.kind(model) == LOCAL,
        read=read,
        use=backends.replace,
        post=loop.post,
    )


def note_concurrency(
    backends: Backends, loop: SchedulerLoop, model: str, description: Description
) -> None:
    """Tell the scheduler how many predictions a model of this machine may run at once."""
    if backends.kind(model) == LOCAL:  # for a remote, the settings have it
        loop.post(Described(model, description.max_concurrency))


def _make_loop(
    settings: Settings,
    backends: Backends,
    memory: Memory,
    schemas: ModelSchemas,
    jobs: Jobs,
    *,
    driver: DriverClient | None,
    telemetry: Telemetry,
    remote_files: RemoteFiles,
) -> SchedulerLoop:
    state = settings.state
    options = ProcessOptions(
        spool_dir=state / "spool",
        tmp_dir=state / "tmp",
        cache_dir=state / "cache",
        setup_timeout_s=settings.setup_timeout_s,
        measure=memory.measure,
        sleep_device=_sleep_device(settings, memory),
        traced=telemetry.traces is not None,
        driver=driver,
    )
    policy = Policy(
        queue_limit=settings.queue_limit,
        idle_to_sleep_s=settings.idle_to_sleep_s,
        asleep_to_stop_s=settings.asleep_to_stop_s,
        min_residency_s=settings.min_residency_s,
        unhealthy_to_restart_s=settings.unhealthy_to_restart_s,
        default_footprint_bytes=settings.default_footprint_bytes,
        growth_bytes=GROWTH_BYTES,
    )

    def make_process(package: Package) -> Process:
        if remote := backends.process(package.name, remote_files):
            return remote
        known = schemas.known(package.name)
        if known:
            package = replace(package, max_concurrency=known.max_concurrency, streams=known.streams)
        own = settings.of_model(package.name)
        if own is not None and own.sleep == "never":
            return CogProcess(package, replace(options, sleep_device=""))
        return CogProcess(package, options)

    budget_bytes = memory.budget_bytes(0)
    scheduler = Scheduler(
        *(backends.concurrency, budget_bytes, policy, backends.remote_models, backends.labels),
        host_budget_bytes=copies_budget_bytes(0, settings.sleep_memory_bytes),
        most_bytes=memory.most_bytes(),
        own_policies={
            target: OwnPolicy(
                *(own.idle_to_sleep_s, own.asleep_to_stop_s, own.queue_limit, own.priority)
            )
            for target in backends.concurrency
            if (own := settings.of_model(backends.labels.get(target, target)))
        },
    )
    return SchedulerLoop(
        *(scheduler, backends.scheduled, make_process, memory, SystemClock()),
        jobs=jobs,
        facts=telemetry.facts,
        copies_budget=partial(copies_budget_bytes, limit_bytes=settings.sleep_memory_bytes),
    )


def _sleep_device(settings: Settings, memory: Memory) -> str:
    """The memory that may sleep; "" when models are only stopped. On a machine without a GPU a
    sleep would move main memory to main memory."""
    if settings.sleep == "auto":
        return "cuda" if isinstance(memory, GpuMemory) else ""
    return "cpu" if settings.sleep == "cpu" else ""


def _driver(settings: Settings, memory: Memory) -> DriverClient | None:
    """What suspends processes on a GPU; None without one, or when no model sleeps."""
    if settings.sleep == "auto" and isinstance(memory, GpuMemory):
        return DriverClient(memory.held_by, memory.free_bytes)
    return None
