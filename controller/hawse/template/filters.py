"""Ansible's filters, beside Jinja's own. Pure functions; a wrong input raises ValueError or InputError."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os.path
import re
import shlex
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import jinja2
import yaml

from hawse_agent.errors import InputError

ListMerge = Literal["replace", "keep", "append", "prepend", "append_rp", "prepend_rp"]


# text and encodings


def _plain(value: Any) -> Any:
    """What JSON has no word for, as JSON values."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


def to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, default=_plain, **options)


def to_nice_json(value: Any, indent: int = 4, sort_keys: bool = True, **options: Any) -> str:
    return json.dumps(
        value, default=_plain, indent=indent, sort_keys=sort_keys, separators=(",", ": "), **options
    )


class _Dumper(yaml.SafeDumper):
    """Writes subclasses of text, mappings and lists as what they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_multi_representer(str, lambda dumper, value: dumper.represent_str(str(value)))
_Dumper.add_multi_representer(dict, lambda dumper, value: dumper.represent_dict(dict(value)))


def to_yaml(value: Any, **options: Any) -> str:
    return _yaml(value, {"default_flow_style": None, **options})


def to_nice_yaml(value: Any, indent: int = 4, **options: Any) -> str:
    return _yaml(value, {"default_flow_style": False, "indent": indent, **options})


def _yaml(value: Any, options: dict[str, Any]) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, allow_unicode=True, **options))


def from_json(value: str) -> Any:
    return json.loads(value)


def from_yaml(value: Any) -> Any:
    return yaml.safe_load(value) if isinstance(value, str) else value


def from_yaml_all(value: Any) -> Any:
    return list(yaml.safe_load_all(value)) if isinstance(value, str) else value


def b64encode(value: Any, encoding: str = "utf-8") -> str:
    return base64.b64encode(str(value).encode(encoding)).decode()


def b64decode(value: str, encoding: str = "utf-8") -> str:
    return base64.b64decode(value).decode(encoding)


def digest(value: Any, hashtype: str = "sha1") -> str:
    if hashtype not in hashlib.algorithms_available:
        raise InputError(f"there is no hash {hashtype!r}")
    return hashlib.new(hashtype, str(value).encode()).hexdigest()


def quote(value: Any) -> str:
    return shlex.quote("" if value is None else str(value))


def to_bool(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return str(value).lower() in ("yes", "on", "1", "true", "1.0")


def comment(value: str, prefix: str = "# ") -> str:
    return "\n".join((prefix + line).rstrip() for line in str(value).splitlines())


def split(value: str, separator: str | None = None, limit: int = -1) -> list[str]:
    return str(value).split(separator, limit)


def to_uuid(value: str, namespace: str = "361E6D51-FAEC-444A-9079-341386DA8E2E") -> str:
    return str(uuid.uuid5(uuid.UUID(namespace), str(value)))


def strftime(form: str, second: float | None = None, utc: bool = False) -> str:
    stamp = datetime.now().timestamp() if second is None else float(second)
    moment = datetime.utcfromtimestamp(stamp) if utc else datetime.fromtimestamp(stamp)
    return moment.strftime(form)


def to_datetime(value: str, form: str = "%Y-%m-%d %H:%M:%S") -> datetime:
    return datetime.strptime(value, form)


# regular expressions


def _flags(ignorecase: bool, multiline: bool) -> int:
    return (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)


def regex_replace(
    value: Any,
    pattern: str = "",
    replacement: str = "",
    ignorecase: bool = False,
    multiline: bool = False,
    count: int = 0,
) -> str:
    return re.compile(pattern, _flags(ignorecase, multiline)).sub(replacement, str(value), count=count)


def regex_findall(value: Any, pattern: str, multiline: bool = False, ignorecase: bool = False) -> list[Any]:
    return re.compile(pattern, _flags(ignorecase, multiline)).findall(str(value))


def regex_search(
    value: Any, pattern: str, *groups: str, ignorecase: bool = False, multiline: bool = False
) -> str | list[Any] | None:
    """The first match, or with groups (`'\\1'`, `'\\g<name>'`) a list of them; None without a match."""
    match = re.compile(pattern, _flags(ignorecase, multiline)).search(str(value))
    if match is None:
        return None
    if not groups:
        return match.group()
    return [match.group(_group(group)) for group in groups]


def _group(text: str) -> str | int:
    named = re.fullmatch(r"\\g<(\S+)>", text)
    numbered = re.fullmatch(r"\\(\d+)", text)
    if named:
        return named[1]
    if numbered:
        return int(numbered[1])
    raise InputError(f"unknown group {text!r}", hint=r"write '\\1' or '\\g<name>'")


def regex_escape(value: str) -> str:
    return re.escape(str(value))


# choosing


def mandatory(value: Any, msg: str | None = None) -> Any:
    if isinstance(value, jinja2.Undefined):
        name = value._undefined_name
        raise InputError(msg or f"mandatory variable {name!r} is not defined")
    return value


def ternary(value: Any, true: Any, false: Any, none: Any = None) -> Any:
    if value is None and none is not None:
        return none
    return true if value else false


def type_debug(value: Any) -> str:
    return type(value).__name__


# mappings and lists


def combine(*items: Any, recursive: bool = False, list_merge: ListMerge = "replace") -> dict[Any, Any]:
    if list_merge not in ("replace", "keep", "append", "prepend", "append_rp", "prepend_rp"):
        raise InputError(f"combine has no list_merge {list_merge!r}")
    result: dict[Any, Any] = {}
    for item in flatten(items):
        if not isinstance(item, Mapping):
            raise InputError(f"combine needs mappings, not {type(item).__name__}")
        result = _merge(result, item, recursive, list_merge)
    return result


def _merge(left: Mapping[Any, Any], right: Mapping[Any, Any], deep: bool, lists: ListMerge) -> dict[Any, Any]:
    result = dict(left)
    for key, value in right.items():
        old = result.get(key)
        if deep and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merge(old, value, deep, lists)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = _merge_lists(old, value, lists)
        else:
            result[key] = value
    return result


def _merge_lists(old: list[Any], new: list[Any], how: ListMerge) -> list[Any]:
    match how:
        case "replace":
            return new
        case "keep":
            return old
        case "append":
            return old + new
        case "prepend":
            return new + old
        case "append_rp":
            return [item for item in old if item not in new] + new
        case "prepend_rp":
            return new + [item for item in old if item not in new]


def dict2items(value: Mapping[Any, Any], key_name: str = "key", value_name: str = "value") -> list[Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"dict2items needs a mapping, not {type(value).__name__}")
    return [{key_name: key, value_name: item} for key, item in value.items()]


def items2dict(value: Iterable[Any], key_name: str = "key", value_name: str = "value") -> dict[Any, Any]:
    if isinstance(value, str | Mapping):
        raise InputError(f"items2dict needs a list, not {type(value).__name__}")
    return {item[key_name]: item[value_name] for item in value}


def flatten(value: Iterable[Any], levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    result: list[Any] = []
    for item in value:
        if item is None and skip_nulls:
            continue
        if isinstance(item, list | tuple) and levels != 0:
            result += flatten(item, None if levels is None else levels - 1, skip_nulls)
        else:
            result.append(item)
    return result


def unique(value: Iterable[Any], case_sensitive: bool = True, attribute: str | None = None) -> list[Any]:
    seen: list[Any] = []
    result: list[Any] = []
    for item in value:
        key = item if attribute is None else item[attribute]
        key = key.lower() if isinstance(key, str) and not case_sensitive else key
        if key not in seen:
            seen.append(key)
            result.append(item)
    return result


def union(left: Iterable[Any], right: Iterable[Any]) -> list[Any]:
    return unique([*left, *right])


def intersect(left: Iterable[Any], right: Iterable[Any]) -> list[Any]:
    others = list(right)
    return unique(item for item in left if item in others)


def difference(left: Iterable[Any], right: Iterable[Any]) -> list[Any]:
    others = list(right)
    return unique(item for item in left if item not in others)


def symmetric_difference(left: Iterable[Any], right: Iterable[Any]) -> list[Any]:
    ours, theirs = list(left), list(right)
    return difference(union(ours, theirs), intersect(ours, theirs))


def extract(key: Any, container: Any, more: Any = None) -> Any:
    value = container[key]
    for part in more if isinstance(more, list) else [] if more is None else [more]:
        value = value[part]
    return value


def subelements(value: Any, path: str | list[str], skip_missing: bool = False) -> list[tuple[Any, Any]]:
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    parts = path.split(".") if isinstance(path, str) else path
    pairs = []
    for item in items:
        inner = item
        for part in parts:
            if skip_missing and part not in inner:
                inner = []
                break
            inner = inner[part]
        pairs += [(item, element) for element in inner]
    return pairs


def _zip(*lists: Sequence[Any]) -> list[list[Any]]:
    return [list(row) for row in zip(*lists, strict=False)]


def _zip_longest(*lists: Sequence[Any], fillvalue: Any = None) -> list[list[Any]]:
    return [list(row) for row in itertools.zip_longest(*lists, fillvalue=fillvalue)]


def _product(*lists: Sequence[Any]) -> list[list[Any]]:
    return [list(row) for row in itertools.product(*lists)]


# numbers


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


def human_readable(value: float) -> str:
    size = float(value)
    for unit in ("Bytes", "KB", "MB", "GB", "TB"):
        if abs(size) < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"


def human_to_bytes(value: Any) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)i?[Bb]?\s*", str(value), re.IGNORECASE)
    if match is None:
        raise InputError(f"not a size: {value}", hint="write it as 10M or 1.5 GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


# addresses of the web


def urlsplit_filter(value: str, part: str = "") -> Any:
    url = urlsplit(value)
    parts = {
        "scheme": url.scheme, "netloc": url.netloc, "path": url.path, "query": url.query,
        "fragment": url.fragment, "hostname": url.hostname, "port": url.port,
        "username": url.username, "password": url.password,
    }  # fmt: skip
    if part and part not in parts:
        raise InputError(f"urlsplit has no part {part!r}")
    return parts[part] if part else parts


FILTERS: dict[str, Callable[..., Any]] = {
    "to_json": to_json,
    "to_nice_json": to_nice_json,
    "to_yaml": to_yaml,
    "to_nice_yaml": to_nice_yaml,
    "from_json": from_json,
    "from_yaml": from_yaml,
    "from_yaml_all": from_yaml_all,
    "b64encode": b64encode,
    "b64decode": b64decode,
    "hash": digest,
    "checksum": digest,
    "md5": lambda value: digest(value, "md5"),
    "sha1": digest,
    "quote": quote,
    "bool": to_bool,
    "comment": comment,
    "split": split,
    "to_uuid": to_uuid,
    "strftime": strftime,
    "to_datetime": to_datetime,
    "regex_replace": regex_replace,
    "regex_findall": regex_findall,
    "regex_search": regex_search,
    "regex_escape": regex_escape,
    "mandatory": mandatory,
    "ternary": ternary,
    "type_debug": type_debug,
    "combine": combine,
    "dict2items": dict2items,
    "items2dict": items2dict,
    "flatten": flatten,
    "unique": unique,
    "union": union,
    "intersect": intersect,
    "difference": difference,
    "symmetric_difference": symmetric_difference,
    "extract": extract,
    "subelements": subelements,
    "zip": _zip,
    "zip_longest": _zip_longest,
    "product": _product,
    "human_readable": human_readable,
    "human_to_bytes": human_to_bytes,
    "urlsplit": urlsplit_filter,
    "basename": lambda value: os.path.basename(str(value)),
    "dirname": lambda value: os.path.dirname(str(value)),
    "splitext": lambda value: list(os.path.splitext(str(value))),
    "expanduser": lambda value: os.path.expanduser(str(value)),
    "realpath": lambda value: os.path.realpath(str(value)),
    "relpath": lambda value, start=".": os.path.relpath(str(value), start),
    "path_join": lambda value: os.path.join(*([value] if isinstance(value, str) else list(value))),
}
