"""Times and durations as Docker writes them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

NEVER = "0001-01-01T00:00:00Z"
NANO = 1_000_000_000


def stamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds but without zeros at their end, as Go writes it: some times Docker's command
    line reads and writes anew."""
    if not seconds:
        return NEVER
    whole = int(seconds)
    fraction = f".{int((seconds - whole) * NANO):09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def duration(seconds: float) -> str:
    """As Docker's clients expect to read it."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(whole / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"
