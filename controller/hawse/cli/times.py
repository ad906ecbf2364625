"""Times as people write them: a date, seconds since 1970, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime

from hawse_agent.errors import InputError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+(?:\.\d+)?)(d|h|ms|us|µs|ns|m|s)"


def moment(text: str, now: float) -> str:
    """Seconds since 1970 of a time (ISO 8601, or seconds) or of an age: `10m`, `1h30m`, `1.5h`."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    if re.fullmatch(rf"({_PART})+", text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
        return f"{now - seconds:.3f}"
    # Python reads at most microseconds; docker prints nanoseconds.
    plain = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        return f"{datetime.fromisoformat(plain).timestamp():.6f}"
    except ValueError:
        raise InputError(f"not a time: {text!r}", hint="2026-01-30T14:25:00, or how long ago: 10m") from None
