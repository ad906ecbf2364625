"""The notations of a Compose file for single values: sizes, durations, ports, key lists. Pure.

Every parser raises ValueError with what was expected, since pydantic adds the place where it stands.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import signal
from collections.abc import Mapping
from typing import Any

from hawse_agent.errors import InputError
from hawse_agent.spec import tmpfs
from hawse_agent.spec.container import Protocol

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d|w)")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TRUE = ("true", "yes", "on", "y", "1")
_FALSE = ("false", "no", "off", "n", "0")


class Int(int):
    """A whole number of the file that knows its spelling."""

    written: str


class Float(float):
    """A number of the file that knows its spelling."""

    written: str


def kind_of(value: Any) -> str:
    """What a person calls a YAML value's type. Never shows the value: it may be a secret."""
    if value is None:
        return "nothing"
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true/false"),
        ((int, float), "a number"),
        (str, "text"),
        (Mapping, "a mapping"),
        ((list, tuple), "a list"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def size(value: Any) -> int:
    """`64m`, `1.5g`, `512kb`, `1024` (bytes); units are powers of 1024, as Docker's."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(float(match[1]) * _FACTORS[match[2].lower()])
    raise ValueError(f"expected a size like 64m or 1g, not {_shown(value)}")


def size_or_unlimited(value: Any) -> int:
    return -1 if value in (-1, "-1") and not isinstance(value, bool) else size(value)


def duration(value: Any) -> float:
    """Seconds of `1m30s`, `500ms`, `2h`; a bare number is refused, as in Compose, for its unit is a guess."""
    if isinstance(value, str):
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 6)
        if text == "0":
            return 0.0
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        return 0.0
    raise ValueError(f"expected a duration like 30s or 1m30s, not {_shown(value)}")


def seconds(value: Any) -> float:
    """For Hawse's own keys: a number of seconds, or a duration."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    return duration(value)


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ValueError(f"expected true or false, not {_shown(value)}")


def integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    raise ValueError(f"expected a whole number, not {_shown(value)}")


def number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?|\.\d+", value.strip()):
        return float(value)
    raise ValueError(f"expected a number from 0 up, not {_shown(value)}")


def signal_name(value: Any) -> str:
    """`SIGTERM`, `TERM`, `15`, `RTMIN+3`."""
    name = text(value)
    plain = name.upper().removeprefix("SIG")
    if plain.isdecimal() and 0 < int(plain) <= signal.SIGRTMAX:
        return name
    if f"SIG{plain}" in signal.Signals.__members__ or re.fullmatch(r"RTM(IN\+|AX-)\d\d?", plain):
        return name
    raise ValueError(f"expected a signal like SIGTERM, not {_shown(value)}")


def text(value: Any) -> str:
    """Text; numbers are taken as they are written (`1.10`), true/false and lists are not text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(getattr(value, "written", value))
    raise ValueError(f"expected text, not {kind_of(value)}")


def scalar(value: Any) -> str:
    """The value of an environment variable, label or option: `true` and `false` are spelled as YAML does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value)


def file_mode(value: Any) -> int:
    """0440 (YAML's octal), "0440" or "440"."""
    mode = -1
    if isinstance(value, int) and not isinstance(value, bool):
        mode = value
    elif isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{1,4}", value):
        mode = int(value.removeprefix("0o"), 8)
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"expected a file mode like 0440, not {_shown(value)}")
    return mode


def container_path(value: Any) -> str:
    path = text(value)
    if not path.startswith("/"):
        raise ValueError(f"expected an absolute path in the container, not {path!r}")
    return path


def texts(value: Any) -> list[Any]:
    """One text or a list of them, as a list."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise ValueError(f"expected text or a list of texts, not {kind_of(value)}")


def argv(value: Any) -> list[str] | None:
    """A command: a list is taken as it is, text is split like a shell does; nothing is the image's own."""
    if value is None:
        return None
    if isinstance(value, str):
        return split(value)
    if isinstance(value, list):
        return [scalar(item) for item in value]
    raise ValueError(f"expected text or a list, not {kind_of(value)}")


def split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ValueError(f"expected a command line with balanced quotes ({error})") from None


def pairs(value: Any) -> dict[str, Any]:
    """`KEY: value` or a list of `KEY=value`; a key without a value is None. Values are checked one by one."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list):
        result: dict[str, Any] = {}
        for entry in value:
            key, equals, rest = text(entry).partition("=")
            if not key:
                raise ValueError("expected KEY=value, not an entry without a key")
            result[key] = rest if equals else None
        return result
    raise ValueError(f"expected a mapping or a list of KEY=value, not {kind_of(value)}")


def optional_scalar(value: Any) -> str | None:
    return None if value is None else scalar(value)


def scalar_or_empty(value: Any) -> str:
    return "" if value is None else scalar(value)


def restart(value: Any) -> str:
    """`no`, `always`, `unless-stopped`, `on-failure[:N]`; YAML reads a bare `no` as false."""
    if value is False:
        return "no"
    if isinstance(value, str) and re.fullmatch(r"no|always|unless-stopped|on-failure(:\d+)?", value):
        return value
    raise ValueError(
        f"expected one of no, always, unless-stopped, on-failure, on-failure:N; not {_shown(value)}"
    )


def extra_hosts(value: Any) -> list[str]:
    """`name:ip` entries, from a list of `name:ip` / `name=ip` or a mapping."""
    entries: list[tuple[str, str]] = []
    if isinstance(value, Mapping):
        for name, addresses in value.items():
            listed = addresses if isinstance(addresses, list) else [addresses]
            entries += [(str(name), text(address)) for address in listed]
    elif isinstance(value, list):
        for entry in value:
            match = re.fullmatch(r"([^:=]+)[:=](.+)", text(entry))
            if match is None:
                raise ValueError(f"expected name:address, not {entry!r}")
            entries.append((match[1], match[2]))
    else:
        raise ValueError(f"expected a list or a mapping, not {kind_of(value)}")
    return [f"{name}:{_host_address(address)}" for name, address in entries]


def _host_address(value: str) -> str:
    address = value.strip().removeprefix("[").removesuffix("]")
    return address if address == "host-gateway" else ip_address(address)


def ip_address(value: Any) -> str:
    plain = text(value)
    try:
        return str(ipaddress.ip_address(plain))
    except ValueError:
        raise ValueError(f"expected an IP address, not {plain!r}") from None


def ipv4_address(value: Any) -> str:
    address = ip_address(value)
    if ":" in address:
        raise ValueError(f"expected an IPv4 address, not {address!r}")
    return address


def ipv4_network(value: Any) -> str:
    plain = text(value)
    try:
        return str(ipaddress.IPv4Network(plain))
    except ValueError as error:
        raise ValueError(f"expected an IPv4 network like 10.5.0.0/24: {error}") from None


_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9]+(?:\.[0-9]+){3}):)?(?:(?P<host>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)(?:/(?P<proto>\w+))?"
)


def short_port(value: Any) -> dict[str, Any]:
    """`[[ip:][host]:]container[/protocol]` as the long form; both ports may be ranges."""
    match = _PORT.fullmatch(value.strip()) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        match = _PORT.fullmatch(str(value))
    if match is None:
        raise ValueError(f"expected a port like 8080:80, 127.0.0.1:8080:80 or 53:53/udp, not {_shown(value)}")
    return {
        "target": match["target"],
        "published": match["host"] or "",
        "host_ip": (match["ip"] or "").strip("[]"),
        "protocol": match["proto"] or "tcp",
    }


def protocol(value: Any) -> Protocol:
    if value == "tcp":
        return "tcp"
    if value == "udp":
        return "udp"
    raise ValueError(f"expected tcp or udp, not {_shown(value)}")


def port_range(value: Any) -> tuple[int, ...]:
    """80, "80" or "8000-8010"."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"expected a port or a range of ports, not {_shown(value)}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        raise ValueError(f"expected ports from 1 to 65535, not {_shown(value)}")
    return tuple(range(first, last + 1))


def exposed(value: Any) -> list[str]:
    """`80`, `80/udp`, `8000-8002` as single `port/protocol` entries."""
    port, _, proto = text(value).partition("/")
    kind = protocol(proto or "tcp")
    return [f"{number_}/{kind}" for number_ in port_range(port)]


def short_mount(value: str) -> dict[str, Any]:
    """`[source:]target[:options]` as the long form."""
    parts = value.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"expected [source:]target[:options], not {value!r}")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) == 3 else []
    is_path = source.startswith(("/", ".", "~"))
    mount: dict[str, Any] = {"type": "bind" if is_path else "volume", "source": source, "target": target}
    if is_path:
        mount["bind"] = {"create_host_path": True}
    for option in options:
        if option == "ro":
            mount["read_only"] = True
        elif option == "nocopy" and not is_path:
            mount["volume"] = {"nocopy": True}
        elif option in ("private", "rprivate", "shared", "rshared", "slave", "rslave") and is_path:
            mount["bind"]["propagation"] = option
        elif option == "idmap" and is_path:
            mount["bind"]["idmap"] = True
        elif option != "rw":
            raise ValueError(
                f"mount option {option!r} is not supported (expected ro, rw, nocopy, idmap, propagation)"
            )
    return mount


def short_tmpfs(value: Any) -> dict[str, Any]:
    """`/path[:size=64m,mode=1777,noexec…]`."""
    target, _, rest = text(value).partition(":")
    options: list[str] = []
    mount: dict[str, Any] = {"target": target, "options": options}
    for option in filter(None, rest.split(",")):
        key, _, argument = option.partition("=")
        if key == "size" and not argument.endswith("%"):
            mount["size"] = argument
        elif key == "mode":
            mount["mode"] = argument
        elif option != "defaults":
            options.append(option)
    try:
        tmpfs.check(options)
    except InputError as error:
        raise ValueError(error.message) from None
    return mount


def device(value: Any) -> dict[str, Any]:
    """`host[:target[:rwm]]`."""
    parts = text(value).split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"expected host[:target[:permissions]], not {value!r}")
    permissions = parts[2] if len(parts) == 3 else "rwm"
    return {
        "source": parts[0],
        "target": parts[1] if len(parts) > 1 else parts[0],
        "permissions": permissions,
    }


def _shown(value: Any) -> str:
    """The value when it is short and plain, else its kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and len(str(value)) <= 40:
        return repr(value)
    return kind_of(value)
