"""Logs: coloured lines on a terminal (by structlog), otherwise one JSON object per line."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson
import structlog

TIMESTAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
QUIET = ("httpx", "python_multipart", "asyncio")
# The attributes of every record; all others come from `extra`. uvicorn's color_message is a second
# copy of its message, with terminal codes.
OF_EVERY_RECORD = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
)


class JsonFormatter(logging.Formatter):
    """Makes JSON lines with `event`, `level`, `timestamp` (RFC 3339, UTC), the record's extra
    fields and, if there is one, `exception`.

    structlog's formatter for the standard library takes three times as long (64 µs instead of 20
    for a request's line, on one busy machine), and every request is logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its line end."""
        line = {k: v for k, v in vars(record).items() if k not in OF_EVERY_RECORD}
        line["event"] = record.getMessage()
        line["level"] = record.levelname.lower()
        line["timestamp"] = f"{datetime.fromtimestamp(record.created, UTC):{TIMESTAMP}}"
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def terminal_formatter() -> logging.Formatter:
    """A formatter with colours and columns, for a person."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            _without_colour,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(),
        ],
    )


def configure_logging(level: int = logging.INFO) -> None:
    """Give the root logger one handler; uvicorn's own loggers go through it too."""
    # "Optimization" in Python's logging HOWTO: no line here shows where in the code it was logged.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(terminal_formatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # router.http.request_log writes its own line per request, with more in it.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_colour(
    logger: object, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    line.pop("color_message", None)
    return line
