"""The texts that Docker's flags take, as the values that Docker's API does. Only files they name are read.

Each function takes one flag's text and raises ValueError with the reason when it is none.
"""

from __future__ import annotations

import csv
import ipaddress
import json
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_NANO = 1_000_000_000
_TIMES = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": _NANO, "m": 60 * _NANO, "h": 3600 * _NANO}
_ULIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)
_SYSCTLS = (
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
    *("kernel.shmmni", "kernel.shm_rmid_forced"),
)


# numbers


def integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError("not a whole number")
    return int(text)


def size(text: str) -> int:
    """`64m`, `1.5g`, `512kb`: bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", text.strip().lower())
    if match is None:
        raise ValueError("not a size: 512, 64m, 1.5g")
    return int(Fraction(match[1]) * (1 << _UNITS[match[2]]))


def size_or_unlimited(text: str) -> int:
    return -1 if text == "-1" else size(text)


def cpus(text: str) -> int:
    """Billionths of a CPU."""
    try:
        number = Fraction(text) * _NANO
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if number.denominator != 1:
        raise ValueError("value is too precise")
    return int(number)


def duration(text: str) -> int:
    """`1m30s`, `500ms`: nanoseconds."""
    if text == "0":
        return 0
    if not re.fullmatch(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", text):
        raise ValueError("not a time: 500ms, 1m30s")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    total = sum(int(Fraction(number) * _TIMES[unit]) for number, unit in parts)
    return -total if text.startswith("-") else total


# lists and pairs


def one(text: str) -> list[str]:
    """One entry of a list."""
    return [text]


def each(parse: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [parse(text)]


def pair(text: str) -> Json:
    """`key=value`, `key`."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"{text!r}: empty name")
    return {key: value}


def option(text: str) -> Json:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("expected key=value")
    return {key: value}


def environment(text: str, own: Mapping[str, str] = os.environ) -> list[str]:
    """`NAME=VALUE`; `NAME` takes over our own value, and where we have none takes the image's away."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    return [text if equals or name not in own else f"{name}={own[name]}"]


def environment_file(path: str, own: Mapping[str, str] = os.environ) -> list[str]:
    """Here a NAME that we have no value of says nothing."""
    found = []
    for line in _lines(path):
        name, equals, _ = line.partition("=")
        if equals:
            found.append(line)
        elif name in own:
            found.append(f"{name}={own[name]}")
    return found


def label_file(path: str) -> Json:
    """A line that is a name alone says nothing, as with Docker."""
    return dict(line.split("=", 1) for line in _lines(path) if "=" in line)


def _lines(path: str) -> list[str]:
    """Lines of names and values, without comments. What has no value is left to the caller."""
    found = []
    for line in _read(path).removeprefix("\ufeff").splitlines():
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name:
            raise ValueError(f"no variable name on line '{line}'")
        if re.search(r"\s", name):
            raise ValueError(f"variable '{name}' contains whitespaces")
        found.append(line)
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None


def stream(text: str) -> list[str]:
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return [name]


def chosen(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return parse


def mode(*words: str) -> Callable[[str], str]:
    """Of a namespace: one of the words, or `container:NAME` when that is one of them."""

    def parse(text: str) -> str:
        if text in words or ("container:" in words and re.fullmatch(r"container:.+", text)):
            return text
        raise ValueError(f"must be one of {', '.join(word for word in words if word)}")

    return parse


# processes and security


def entrypoint(text: str) -> tuple[str, ...]:
    """An empty one takes the image's away. A tuple, since the last one given counts."""
    return (text,)


def health_command(text: str) -> tuple[str, ...]:
    return ("CMD-SHELL", text) if text else ()


def restart(text: str) -> Json:
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if not colon:
        return {"Name": name}
    if not re.fullmatch(r"-?\d+", count):
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count)}


def capability(text: str) -> list[str]:
    name = text.upper()
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"]


def security(text: str) -> Json:
    """A piece of the body: a seccomp profile is read here and sent as it is."""
    key, separator, value = _cut(text, "=:")
    if not separator and key != "no-new-privileges":
        raise ValueError(f'Invalid --security-opt: "{text}"')
    if text == "systempaths=unconfined":
        return {"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}}
    if key == "seccomp" and value not in ("unconfined", "builtin"):
        try:
            profile = json.dumps(json.loads(_read(value)), separators=(",", ":"))
        except json.JSONDecodeError as error:
            raise ValueError(f"compacting json for seccomp profile ({value}) failed: {error}") from None
        text = f"seccomp={profile}"
    return {"HostConfig": {"SecurityOpt": [text]}}


def _cut(text: str, separators: str) -> tuple[str, str, str]:
    match = re.search(f"[{separators}]", text)
    if match is None:
        return text, "", ""
    return text[: match.start()], match[0], text[match.end() :]


def ulimit(text: str) -> Json:
    """By its name: the last one given counts."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    if not re.fullmatch(r"-?\d+(:-?\d+)?", limits):
        raise ValueError(f"invalid ulimit value: {limits}")
    soft, _, hard = limits.partition(":")
    first, last = int(soft), int(hard or soft)
    if last != -1 and (first > last or first == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {first} > {last}")
    return {name: {"Name": name, "Soft": first, "Hard": last}}


def sysctl(text: str) -> Json:
    key = text.partition("=")[0]
    if "=" not in text or not (key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return pair(text)


# devices


def device(text: str) -> list[Json]:
    """`/dev/a`, `/dev/a:/dev/b`, `/dev/a:rw`, `/dev/a:/dev/b:r`."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"invalid device specification: {text}")
    host, target, access = parts[0], "", "rwm"
    if len(parts) == 3:
        target, access = parts[1], parts[2]
    elif len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    target = target or host
    if not _is_access(access):
        raise ValueError(f"bad mode specified: {access}")
    for path in (host, target):
        if not path.startswith("/"):
            raise ValueError(f"{path} is not an absolute path")
    return [{"PathOnHost": host, "PathInContainer": target, "CgroupPermissions": access}]


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def bytes_rate(text: str) -> list[Json]:
    return _rate(text, size)


def operations_rate(text: str) -> list[Json]:
    return _rate(text, integer)


def _rate(text: str, parse: Callable[[str], int]) -> list[Json]:
    path, colon, rate = text.rpartition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        number = parse(rate)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"invalid rate for device: {text}. The correct format is <device-path>:<number>")
    return [{"Path": path, "Rate": number}]


# network


def network(text: str) -> list[Json]:
    """`NAME`, or `name=NAME,alias=A,ip=1.2.3.4,mac-address=…`: its endpoint, with the name in it."""
    if "=" not in text:
        return [{"name": text}]
    found: Json = {"name": ""}
    for key, value in _fields(text):
        match key:
            case "name":
                found["name"] = value
            case "alias":
                found.setdefault("Aliases", []).append(value)
            case "ip":
                found.setdefault("IPAMConfig", {})["IPv4Address"] = ip_address(value)
            case "ip6":
                found.setdefault("IPAMConfig", {})["IPv6Address"] = ip_address(value)
            case "mac-address":
                found["MacAddress"] = mac_address(value)
            case "link-local-ip":
                found.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(ip_address(value))
            case "driver-opt":
                found.setdefault("DriverOpts", {}).update(option(value))
            case "gw-priority":
                found["GwPriority"] = integer(value)
            case _:
                raise ValueError(f"invalid field {key}")
    if not found["name"]:
        raise ValueError("network name/id is not specified")
    return [found]


def ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def mac_address(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", text):
        raise ValueError(f"{text} is not a valid mac address")
    return text


def name_server(text: str) -> list[str]:
    return [ip_address(text)]


def link(text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"bad format for links: {text}")
    return [text]


def extra_host(text: str) -> list[str]:
    name, separator, address = _cut(text, "=:")
    if not name or not separator:
        raise ValueError(f'bad format for add-host: "{text}"')
    address = address.strip("[]")
    if address != "host-gateway":
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return [f"{name}:{address}"]


def publish(text: str) -> Json:
    """A piece of the body: the port that is published is exposed as well."""
    if "=" in text:
        text = _short_port(text)
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    *outer, inner = number.split(":")
    host_port = outer.pop() if outer else ""
    host_ip = ":".join(outer)
    if host_ip.startswith("[") and host_ip.endswith("]"):
        host_ip = host_ip[1:-1]
    if host_ip:
        try:
            ipaddress.ip_address(host_ip)
        except ValueError:
            raise ValueError(f"invalid IP address: {host_ip}") from None
    if not inner:
        raise ValueError(f"no port specified: {text}<empty>")
    first, last = _range(inner, "containerPort")
    begin, end = _range(host_port, "hostPort") if host_port else (0, 0)
    if host_port and last - first != end - begin and first != last:
        raise ValueError(f"invalid ranges specified for container and host Ports: {inner} and {host_port}")
    exposed: Json = {}
    bindings: Json = {}
    for place in range(last - first + 1):
        outside = str(begin + place) if host_port else ""
        if first == last and begin != end:
            outside = f"{begin}-{end}"
        port = f"{first + place}/{protocol}"
        exposed[port] = {}
        bindings[port] = [{"HostIp": host_ip, "HostPort": outside}]
    return {"ExposedPorts": exposed, "HostConfig": {"PortBindings": bindings}}


def _short_port(text: str) -> str:
    """`target=80,published=8080,protocol=udp` as `8080:80/udp`."""
    found = dict(_fields(text))
    for key in found:
        if key not in ("target", "published", "protocol", "mode"):
            raise ValueError(f"invalid field {key}")
    if "target" not in found:
        raise ValueError("no target port is named")
    outer = f"{found['published']}:" if found.get("published") else ""
    return f"{outer}{found['target']}/{found.get('protocol', 'tcp')}"


def expose(text: str) -> Json:
    if ":" in text:
        raise ValueError(f"invalid port format for --expose: {text}")
    number, _, protocol = text.partition("/")
    first, last = _range(number, "range format for --expose")
    return {f"{port}/{(protocol or 'tcp').lower()}": {} for port in range(first, last + 1)}


def _range(text: str, what: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise ValueError(f"invalid {what}: {text}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last > 65535:
        raise ValueError(f"invalid {what}: {text}")
    return first, last


# volumes


def volume(text: str) -> Json:
    """A piece of the body: `/inside` is an anonymous volume, all else is bound."""
    if ":" not in text:
        return {"Volumes": {text: {}}}
    source, rest = text.split(":", 1)
    if source.startswith("."):
        source = str(Path(source).absolute())
        text = f"{posixpath.normpath(source)}:{rest}"
    return {"HostConfig": {"Binds": [text]}}


def tmpfs(text: str) -> Json:
    target, _, options = text.partition(":")
    return {target: options}


def mount(text: str) -> list[Json]:
    """`type=bind,src=/a,dst=/b,readonly`."""
    found: Json = {"Type": "volume"}

    def inner(kind: str) -> Json:
        options: Json = found.setdefault(f"{kind}Options", {})
        return options

    for key, value in _fields(text, switches=_MOUNT_SWITCHES):
        match key:
            case "type":
                found["Type"] = value.lower()
            case "source" | "src":
                found["Source"] = value
            case "target" | "dst" | "destination":
                found["Target"] = value
            case "readonly" | "ro":
                found["ReadOnly"] = _truth(value, key)
            case "consistency":
                found["Consistency"] = value.lower()
            case "bind-propagation":
                inner("Bind")["Propagation"] = value.lower()
            case "bind-nonrecursive":
                inner("Bind")["NonRecursive"] = _truth(value, key)
            case "bind-recursive":
                inner("Bind").update(_recursion(value))
            case "volume-nocopy":
                inner("Volume")["NoCopy"] = _truth(value, key)
            case "volume-subpath":
                inner("Volume")["Subpath"] = value
            case "volume-label":
                inner("Volume").setdefault("Labels", {}).update(pair(value))
            case "volume-driver":
                inner("Volume").setdefault("DriverConfig", {})["Name"] = value
            case "volume-opt":
                inner("Volume").setdefault("DriverConfig", {}).setdefault("Options", {}).update(pair(value))
            case "tmpfs-size":
                inner("Tmpfs")["SizeBytes"] = size(value)
            case "tmpfs-mode":
                if not re.fullmatch(r"[0-7]+", value):
                    raise ValueError(f"invalid value for {key}: {value}")
                inner("Tmpfs")["Mode"] = int(value, 8)
            case _:
                raise ValueError(f"unexpected key '{key}' in '{key}={value}'")
    if not found.get("Target"):
        raise ValueError("target is required")
    if found["Type"] == "bind" and found.get("Source", "").startswith("."):
        found["Source"] = posixpath.normpath(Path(found["Source"]).absolute())
    return [found]


_MOUNT_SWITCHES = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")


def _truth(text: str, key: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise ValueError(f"invalid value for {key}: {text}")


def _recursion(text: str) -> Json:
    match text:
        case "enabled":
            return {}
        case "disabled":
            return {"NonRecursive": True}
        case "writable":
            return {"ReadOnlyNonRecursive": True}
        case "readonly":
            return {"ReadOnlyForceRecursive": True}
    raise ValueError(f"invalid value for bind-recursive: {text}")


def _fields(text: str, switches: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """`a=1,"b=2,3",c`: keys in small letters; those of `switches` may stand alone."""
    found = []
    for entry in next(csv.reader([text]), []):
        key, equals, value = entry.partition("=")
        key = key.lower()
        if not equals and key not in switches:
            raise ValueError(f"invalid field '{entry}' must be a key=value pair")
        found.append((key, value if equals else "true"))
    return found
