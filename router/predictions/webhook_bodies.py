"""Compact webhook bodies, for receivers that ask for the event `progress`.

Such a receiver keeps the prediction in a row of its own, so a body has neither the inputs nor the
whole log. Each body has `at`, the time of its news in milliseconds since the epoch: by it a
receiver sorts events that arrive out of order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from router.prediction import Json, OutputFile, Prediction, Status, WebhookEvent

# Limit for the log in a compact body. A line with a small preview picture has a few kB.
TAIL_BYTES = 12 << 10
# What tqdm and most models print: ` 42%|███`, `12.5 %`.
PERCENT = re.compile(r"(?<![\d.])(\d{1,3})(?:\.\d{1,9})?\s?%", re.ASCII)
LEFT_OUT = ("input", "logs", "urls", "version", "source", "data_removed")


def is_compact(p: Prediction) -> bool:
    """Whether the prediction's receiver asks for compact bodies."""
    return p.callback is not None and WebhookEvent.PROGRESS in p.callback.events


def compact(
    view: Mapping[str, Json], p: Prediction, at: float, files: tuple[OutputFile, ...]
) -> Json:
    """The body made of Replicate's `view`. `at`: the time of the news, in seconds since the epoch.
    `files`: output files that the receiver has, where `output` has null."""
    body = {key: value for key, value in view.items() if key not in LEFT_OUT}
    tail = log_tail(p.logs)
    body |= {"at": int(at * 1000), "progress": percent(p), "log_tail": tail}
    if files:
        body["output_files"] = [file_view(file) for file in files]
    return body


def file_view(file: OutputFile) -> dict[str, Json]:
    """What a receiver learns about an output file. `place`: keys and indexes into the output."""
    return {
        "place": list(file.place),
        "name": file.name,
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
    }


def percent(p: Prediction) -> int | None:
    """How much of the run is done, 0 to 100, by the last percentage in its log; None when there is
    none. A run that has succeeded is at 100."""
    if p.status is Status.SUCCEEDED:
        return 100
    found = PERCENT.findall(log_tail(p.logs))
    return int(found[-1]) if found and int(found[-1]) <= 100 else None


def log_tail(logs: str) -> str:
    """The last complete lines, at most TAIL_BYTES of UTF-8; of a longer last line, its end."""
    if len(logs) <= TAIL_BYTES // 4:  # no character takes more than four bytes
        return logs
    data = logs[-TAIL_BYTES:].encode(errors="replace")
    if len(data) <= TAIL_BYTES and len(logs) <= TAIL_BYTES:
        return logs
    data = data[-TAIL_BYTES:]
    start = data.find(b"\n") + 1
    return data[start if start < len(data) else 0 :].decode(errors="ignore")
