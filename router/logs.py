"""Logs: coloured lines on a terminal, one JSON object a line elsewhere (structlog)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

QUIET = ("httpx", "python_multipart", "asyncio")


def configure_logging(level: int = logging.INFO) -> None:
    """Give the root logger one handler; uvicorn's own loggers go through it too."""
    # As the logging HOWTO has it under "Optimization": no line here says where it was logged.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            _without_colour,
            *shared,
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer()
            if sys.stderr.isatty()
            else structlog.processors.JSONRenderer(serializer=_dumps),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # router.http.request_log says more, in one line.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_colour(
    logger: Any, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """uvicorn adds its message a second time, with a terminal's codes in it."""
    line.pop("color_message", None)
    return line


def _dumps(line: Any, *, default: Any) -> str:
    return orjson.dumps(line, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
