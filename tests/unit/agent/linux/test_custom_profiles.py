"""Profiles that people write: what cannot be compiled is refused when it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hawse_agent.errors import InputError
from hawse_agent.linux import seccomp

ALLOW: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}


def rule(**fields: Any) -> dict[str, Any]:
    return {**ALLOW, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", **fields}]}


@pytest.mark.parametrize("profile", [ALLOW, {**ALLOW, "syscalls": []}, rule(), rule(errnoRet=4095)])
def test_it_compiles(profile: dict[str, Any]) -> None:
    seccomp.check(json.dumps(profile))
    assert seccomp.compile_filter(json.dumps(profile), ())


@pytest.mark.parametrize(
    "profile",
    [
        {},
        [],
        {**ALLOW, "syscalls": 5},
        {**ALLOW, "syscalls": ["a"]},
        {"defaultAction": ["x"]},
        rule(errnoRet="x"),
        rule(errnoRet=2147418112),  # or'ed to the action it would mean ALLOW
        rule(errnoRet=-1),
        rule(args=[{"index": "x", "op": "SCMP_CMP_EQ"}]),
        rule(args=[{"index": 0, "value": 2**100, "op": "SCMP_CMP_EQ"}]),
        rule(includes=["x"]),
        rule(includes={"minKernel": "abc"}),
    ],
)
def test_it_is_refused(profile: Any) -> None:
    with pytest.raises(InputError, match="seccomp profile"):
        seccomp.check(json.dumps(profile))
