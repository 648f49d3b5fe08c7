"""What is loaded without a request: `preload` at the start, `keep_loaded` at its hours."""

from __future__ import annotations

import logging

from router.clock import SystemClock
from router.errors import RouterError
from router.http.context import Context
from router.logs import PACKAGE_UNREADABLE
from router.models.process_interface import StartError
from router.models.tracebacks import with_location
from router.predictions.keep_loaded import KeepLoaded
from router.scheduling.messages import Load
from router.settings import Settings

log = logging.getLogger(__name__)


async def prepare(context: Context, settings: Settings) -> None:
    """Read the schemas of all packages, one after the other, and load the models in `preload`.
    Then keep models loaded at their hours, until cancelled."""
    for name, package in context.packages.items():
        try:
            await context.input_schema(package)
        except (RouterError, StartError) as error:
            unread = context.schemas.unreadable(name)
            reason = with_location(str(error), unread.location if unread else "")
            log.error(PACKAGE_UNREADABLE, extra={"model": name, "reason": reason})
            continue
        except Exception:
            log.exception(PACKAGE_UNREADABLE, extra={"model": name})
            continue  # a bug, which must not affect the other models
        if name in settings.preload or "all" in settings.preload:
            context.loop.post(Load(name))
    await _keep_loaded(context, settings).run()


def _keep_loaded(context: Context, settings: Settings) -> KeepLoaded:
    schedules = {
        name: own.schedule
        for name, own in settings.models.items()
        if own.schedule is not None and name in context.packages
    }
    return KeepLoaded(
        schedules,
        SystemClock(),
        context.loop.post,
        # A process that starts needs to know how many predictions its runner takes.
        may_load=lambda name: context.schemas.known(name) is not None,
    )
