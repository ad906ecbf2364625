"""Sizes, ages and times as Docker's clients say them."""

from __future__ import annotations

from datetime import datetime


def human_size(count: float, digits: int = 4) -> str:
    """`1.23MB`: powers of 1000."""
    return _scaled(count, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"), digits)


def bytes_size(count: float) -> str:
    """`1.25MiB`: powers of 1024."""
    return _scaled(count, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"), 4)


def _scaled(count: float, base: float, units: tuple[str, ...], digits: int) -> str:
    step = 0
    while count >= base and step < len(units) - 1:
        count, step = count / base, step + 1
    return f"{count:.{digits}g}{units[step]}"


def human_duration(seconds: float) -> str:
    """`About an hour`."""
    whole, hours = int(seconds), int(seconds / 3600 + 0.5)
    if whole < 60:
        return {0: "Less than a second", 1: "1 second"}.get(max(whole, 0), f"{whole} seconds")
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole // 3600 // 24 // 365} years"


def local_time(seconds: float) -> str:
    """`2026-01-30 14:25:00 +0100 CET`."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def short_id(identity: str) -> str:
    """The first 12 digits, without the name of the digest."""
    return identity.partition(":")[2][:12] if ":" in identity else identity[:12]


def shortened(text: str, width: int) -> str:
    """At most so many characters, with an ellipsis as the last of them."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
