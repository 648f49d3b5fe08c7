"""Logs: coloured lines on a terminal (by structlog), otherwise one JSON object per line."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TextIO

import orjson
import structlog

QUIET = ("httpx", "python_multipart", "asyncio")
# What is logged when a model does not start. Commands that print this themselves hide it.
PACKAGE_UNREADABLE = "package cannot be read"
START_FAILED = "model failed to start"
# The attributes of every record; all others come from `extra`. uvicorn's color_message is a second
# copy of its message, with terminal codes.
OF_EVERY_RECORD = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
)


class StartFailureFilter(logging.Filter):
    """Leaves out log lines about a start that failed, while a command prints them itself."""

    EVENTS = frozenset({PACKAGE_UNREADABLE, START_FAILED})

    def __init__(self) -> None:
        super().__init__()
        self._models: Counter[str] = Counter()

    def hide(self, model: str = "") -> None:
        """Leave out this model's lines from now on, or with "" those of all models."""
        self._models[model] += 1
        for handler in logging.getLogger().handlers:
            handler.addFilter(self)

    def show(self, model: str = "") -> None:
        """Log them again, when `show` has been called as often as `hide`."""
        self._models[model] -= 1

    @contextlib.contextmanager
    def hidden(self, model: str) -> Iterator[None]:
        """Leave out this model's lines within a `with` statement, however it ends."""
        self.hide(model)
        try:
            yield
        finally:
            self.show(model)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged. A bug's traceback always is."""
        if record.exc_info or record.getMessage() not in self.EVENTS:
            return True
        return not (self._models[""] or self._models[str(getattr(record, "model", ""))])


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
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _json(line)


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes JSON lines to `stream`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())

    def write_info(self, event: str, fields: Mapping[str, object]) -> None:
        """Write the line that a record of level INFO with these extra fields would become."""
        now = datetime.now(UTC)
        try:
            line = _json({**fields, "event": event, "level": "info", "timestamp": now})
            with self.lock or contextlib.nullcontext():
                self.stream.write(f"{line}\n")
                self.stream.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": event}))


def _json(line: Mapping[str, object]) -> str:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
    return orjson.dumps(line, default=str, option=options).decode()


def log_info(logger: logging.Logger, event: str, fields: Mapping[str, object]) -> None:
    """As `logger.info(event, extra=fields)`, for what every request logs.

    A record, its filters and its handlers take most of the time of a JSON line. So there is no
    record where JSON lines are all that becomes of it.
    """
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], JsonHandler):
        if logger.isEnabledFor(logging.INFO):
            handlers[0].write_info(event, fields)
    else:
        logger.info(event, extra=fields)


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
    handler: logging.Handler = JsonHandler(sys.stderr)
    if sys.stderr.isatty():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(terminal_formatter())
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
