"""Watches a runner's methods, and reports what they raise. Standard library only.

coglet 0.23.1 passes on "Class: message" of an exception and nothing else, so nobody could see
which line raised it. So an exception is printed here, where it leaves the package's code
(`callme_tracebacks.py`), and then goes on to coglet unchanged.
"""

import contextlib
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any

tracebacks: Any = importlib.import_module("callme_tracebacks")  # in this folder

METHODS = ("setup", "run", "predict", "healthcheck")
# How coglet and asyncio end a run that is canceled, and how a runner refuses its input.
NOT_FAILURES = frozenset({"CancelationException", "CancelledError", "GeneratorExit"})
REFUSAL = "InvalidInput"
LEAST_SCRUBBED_CHARS = 4  # as in `router.secret_inputs`


class Watch:
    """Reports what one method of the runner raises to coglet."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last = ""

    def raised(self, error: BaseException) -> None:
        """Report the exception, unless it is a cancel or a refused input."""
        name = type(error).__name__
        if name in NOT_FAILURES or (name == REFUSAL and self._name in ("run", "predict")):
            return
        if self._name == "healthcheck":
            # It is asked every second while it fails: only a change is worth a line.
            said = f"{tracebacks.location_of(error)} {tracebacks.message_of(error)}"
            if said == self._last:
                return
            self._last = said
        if self._name == "setup":
            tracebacks.report_set_up(error)
        else:
            tracebacks.report(error)

    def went_well(self) -> None:
        """Note that the method has returned."""
        self._last = ""


def is_called_by_package(caller: FrameType | None) -> bool:
    """Whether the package itself calls the method. Then it may also handle the exception."""
    return caller is not None and tracebacks.own_name(caller.f_code.co_filename) is not None


def watched(function: Any, name: str) -> Any:
    """Return a function of the same kind that reports what `function` raises to coglet."""
    watch = Watch(name)
    secret_inputs = secret_parameters(function)

    def note(inputs: Mapping[str, Any]) -> None:
        for given in secret_inputs.intersection(inputs):
            tracebacks.SECRETS.extend(secret_values(inputs[given]))

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_called_by_package(sys._getframe().f_back):
            return function(*args, **kwargs)
        note(kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            watch.raised(error)
            raise
        watch.went_well()
        return watched_generator(result, watch) if inspect.isgenerator(result) else result

    @functools.wraps(function)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        if is_called_by_package(sys._getframe().f_back):
            return await function(*args, **kwargs)
        note(kwargs)
        report_tasks()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            watch.raised(error)
            raise
        watch.went_well()
        return result

    @functools.wraps(function)
    async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        note(kwargs)
        report_tasks()
        async with contextlib.aclosing(function(*args, **kwargs)) as items:
            try:
                async for item in items:
                    yield item
            except BaseException as error:
                watch.raised(error)
                raise

    if inspect.isasyncgenfunction(function):
        return run_async_generator
    return run_async if inspect.iscoroutinefunction(function) else run


def secret_parameters(function: Any) -> frozenset[str]:
    """Return the names of the parameters whose type is or contains `cog.Secret`."""
    types = getattr(function, "__annotations__", {})
    return frozenset(name for name, kind in types.items() if "Secret" in str(kind))


def secret_values(value: Any) -> Iterator[str]:
    """Return the texts in the value of a secret input. coglet gives the items of a list as
    `str`."""
    if isinstance(value, str):
        if len(value) >= LEAST_SCRUBBED_CHARS:
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secret_values(item)
    elif hasattr(value, "get_secret_value"):
        yield from secret_values(value.get_secret_value())


def watched_generator(items: Generator[Any, Any, Any], watch: Watch) -> Generator[Any, Any, Any]:
    """Yield the same items, and report what is raised between them."""
    try:
        return (yield from items)
    except BaseException as error:
        watch.raised(error)
        raise


def watch_runner(runner: Any) -> Any:
    """Watch the methods of a runner, or a function that is one, as coglet will call them.

    The runner's class is changed, not the object: so an object can still be pickled.
    """
    if inspect.isfunction(runner):
        use_defaults(runner)
        return watched(runner, "run")
    cls = type(runner)
    for name in METHODS:
        function = inspect.getattr_static(cls, name, None)
        # Cog's own methods do nothing. What is no plain function is left as it is.
        if inspect.isfunction(function) and not function.__module__.startswith("cog."):
            use_defaults(function)
            with contextlib.suppress(AttributeError, TypeError):
                setattr(cls, name, watched(function, name))
    return runner


def use_defaults(function: Any) -> None:
    """Replace each `Input(default=x)` by x, as coglet does with the function that it is given."""
    from cog.input import FieldInfo  # noqa: PLC0415 - only in a worker

    def default(value: Any) -> Any:
        return value.default if isinstance(value, FieldInfo) else value

    if function.__defaults__:
        function.__defaults__ = tuple(map(default, function.__defaults__))
    if function.__kwdefaults__:
        function.__kwdefaults__ = {k: default(v) for k, v in function.__kwdefaults__.items()}


def report_threads() -> None:
    """Report what ends a thread, in the same form."""
    before = threading.excepthook

    def hook(args: Any) -> None:
        if args.exc_value is None or issubclass(args.exc_type, SystemExit):
            before(args)
        else:
            name = args.thread.name if args.thread is not None else "unknown"
            tracebacks.report(args.exc_value, f" in thread '{name}'")

    threading.excepthook = hook


def report_tasks() -> None:
    """Report what ends a task whose result nobody reads, in the same form."""
    import asyncio  # noqa: PLC0415 - imported by then

    loop = asyncio.get_running_loop()
    if loop.get_exception_handler() is not None:
        return

    def handle(loop: Any, context: dict[str, Any]) -> None:
        if isinstance(error := context.get("exception"), BaseException):
            task = context.get("task") or context.get("future")
            named = f" in task '{task.get_name()}'" if isinstance(task, asyncio.Task) else ""
            tracebacks.report(error, named)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def patch_cog_predictor(module: ModuleType) -> None:
    """Watch every runner that coglet loads through `cog.predictor`."""
    predictor: Any = module
    load: Callable[[str], Any] = predictor.load_predictor_from_ref

    @functools.wraps(load)
    def load_watched(ref: str) -> Any:
        report_threads()
        try:
            return watch_runner(load(ref))
        except BaseException as error:
            tracebacks.report_set_up(error)
            raise

    predictor.load_predictor_from_ref = load_watched
