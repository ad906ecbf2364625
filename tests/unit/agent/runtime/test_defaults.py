"""Docker's rule for capabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse_agent.errors import InputError
from hawse_agent.linux import privilege
from hawse_agent.runtime import defaults

EVERY = (1 << len(privilege.CAPABILITIES)) - 1
NO_RESOURCE = EVERY & ~(1 << privilege.CAPABILITIES.index("CAP_SYS_RESOURCE"))


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        ((), (), False, set(defaults.DEFAULT_CAPABILITIES)),
        (("NET_ADMIN",), (), False, {*defaults.DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"}),
        (("cap_net_admin",), ("ALL",), False, {"CAP_NET_ADMIN"}),
        ((), ("all",), False, set()),
        ((), ("CHOWN",), False, set(defaults.DEFAULT_CAPABILITIES) - {"CAP_CHOWN"}),
        (("CHOWN",), ("CHOWN",), False, set(defaults.DEFAULT_CAPABILITIES)),
        (("ALL",), ("SYS_ADMIN",), False, set(privilege.CAPABILITIES) - {"CAP_SYS_ADMIN"}),
        ((), ("ALL",), True, set(privilege.CAPABILITIES)),
    ],
)
def test_combine(
    monkeypatch: pytest.MonkeyPatch,
    add: tuple[str, ...],
    drop: tuple[str, ...],
    privileged: bool,
    expected: set[str],
) -> None:
    monkeypatch.setattr(privilege, "available", lambda: EVERY)
    assert set(defaults.combine_capabilities(add, drop, privileged)) == expected


def test_what_the_machine_cannot_give_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "available", lambda: NO_RESOURCE)
    assert "CAP_SYS_RESOURCE" not in defaults.combine_capabilities(("SYS_RESOURCE",), (), True)


@pytest.mark.parametrize(("add", "drop"), [(("FLY",), ()), ((), ("CAP_FLY",))])
def test_unknown(add: tuple[str, ...], drop: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="FLY"):
        defaults.combine_capabilities(add, drop, False)


def test_counters_of_throttling_are_masked_where_there_are_any(tmp_path: Path) -> None:
    for name in ("cpu0", "cpu11", "cpufreq"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    found = defaults.default_masked_paths(tmp_path)
    assert found[: len(defaults.MASKED_PATHS)] == defaults.MASKED_PATHS
    assert found[len(defaults.MASKED_PATHS) :] == (
        f"{tmp_path}/cpu0/thermal_throttle",
        f"{tmp_path}/cpu11/thermal_throttle",
    )
