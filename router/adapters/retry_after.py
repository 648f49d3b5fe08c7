"""The Retry-After header of another server's answer (RFC 9110, 10.2.3)."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)  # some send fractions
AT_MOST_S = 86400.0  # more is most likely a mistake


def seconds_of(value: str | None) -> float | None:
    """Seconds to wait, 0 to AT_MOST_S, given as a number or a date; None for anything else."""
    text = (value or "").strip()
    if SECONDS.fullmatch(text):
        return min(float(text), AT_MOST_S)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(aware.timestamp() - time.time(), 0.0), AT_MOST_S)
