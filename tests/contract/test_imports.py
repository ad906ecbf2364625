"""Imports go one way, and each third-party library is behind one package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = [path for path in sys.path if path.endswith("site-packages")]
SOURCES = {"hawse_agent": ROOT / "agent", "hawse": ROOT / "controller", "tests": ROOT, "bench": ROOT}

_BASE = {"errors", "paths", "locations", "failpoints", "__version__"}
_HOST = _BASE | {"spec", "linux"}
MAY_IMPORT = {
    # Every package and module of the agent, and what of the agent it may import.
    "errors": set[str](),
    "failpoints": set[str](),
    "locations": set[str](),
    "paths": {"locations"},
    "launch": {"__version__"},
    "spec": _BASE,
    "distribution": _BASE | {"spec"},
    "plan": _BASE | {"spec"},
    "linux": {"errors"},
    "cgroups": _HOST,
    "images": _HOST | {"distribution"},
    "network": _HOST,
    "runtime": _HOST | {"cgroups"},
    "volumes": _HOST | {"images"},  # first use copies what an image has there
    "provision": _HOST | {"plan"},  # an item's changes are a plan's
    "supervise": _HOST | {"cgroups", "runtime"},
    "build": _HOST | {"distribution", "cgroups", "runtime", "images", "supervise"},
    "engine": _HOST
    | {
        *(
            "distribution",
            "build",
            "cgroups",
            "images",
            "network",
            "plan",
            "provision",
            "runtime",
            "supervise",
            "volumes",
        ),
        *("launch",),
    },
    "api": _HOST
    | {"build", "distribution", "cgroups", "engine", "images", "plan", "supervise", "volumes", "launch"},
    "daemon": _HOST | {"api", "cgroups", "engine", "hostdown", "launch", "network", "runtime", "supervise"},
    "hostdown": _BASE | {"supervise"},
    "zygote_main": {"network", "runtime", "supervise"},
    "dial": {"launch", "locations"},
    "doctor": _HOST | {"launch", "network", "runtime"},
    "rebuild": _HOST | {"distribution", "daemon", "engine", "images", "network", "supervise"},
    "reset": _HOST | {"build", "cgroups", "daemon", "network", "runtime", "supervise"},
    "__main__": _BASE | {"daemon", "dial", "doctor", "launch", "linux", "rebuild", "reset", "zygote_main"},
}
OF_THE_AGENT_FOR_THE_CONTROLLER = {"spec", "plan", "distribution", *_BASE}

ONLY_IN = {
    # Third-party library, and ctypes: where it may be imported, by path from the repository's root.
    "ctypes": (
        "agent/hawse_agent/linux/",
        "agent/hawse_agent/network/libnftables.py",
        "tests/",
    ),
    "h11": ("agent/hawse_agent/api/", "controller/hawse/fleet/", "tests/"),
    "paramiko": ("controller/hawse/ssh/", "tests/"),
    "jinja2": ("controller/hawse/template/", "tests/unit/controller/template/"),
    "pydantic": ("controller/hawse/",),
    "yaml": ("controller/hawse/", "tests/"),
    "rich": ("controller/hawse/report/", "controller/hawse/cli/"),
    "zstandard": ("controller/hawse/", "tests/"),
    "sqlite3": ("agent/hawse_agent/engine/state.py", "controller/hawse/report/history.py", "tests/"),
    "docker": ("tests/", "bench/"),
    "pytest": ("tests/",),
    "pyroute2": (),
}


def modules(package: str) -> Iterator[tuple[Path, str]]:
    """Files of a package, each with the name of its second level: `network` of hawse_agent.network.dns."""
    top = SOURCES[package] / package
    for path in sorted(top.rglob("*.py")):
        yield path, path.relative_to(top).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_agents_packages_import_one_way() -> None:
    wrong = []
    for path, own in modules("hawse_agent"):
        for name in imports(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top == "hawse":
                wrong.append(f"{path.name} imports the controller")
            elif top == "hawse_agent" and other and own != "__init__":
                allowed = MAY_IMPORT[own] | {own}
                if other not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}: {own} may not import {other}")
    assert wrong == []


def test_the_life_of_containers_is_told_in_one_order() -> None:
    """Each module of it knows those before it."""
    order = ("shims", "looking", "sharing", "files", "attaching", "control", "removal")
    order = (*order, "starting", "creation", "following", "recovery")
    package = "hawse_agent.engine.containers."
    top = ROOT / "agent/hawse_agent/engine/containers"
    assert {path.stem for path in top.glob("*.py")} == {"__init__", *order}
    for place, name in enumerate(order):
        known = {
            i.removeprefix(package).split(".")[0]
            for i in imports(top / f"{name}.py")
            if i.startswith(package)
        }
        assert known <= set(order[:place]), name


def test_the_controller_knows_little_of_the_agent() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, _ in modules("hawse")
        for name in imports(path)
        if name.startswith("hawse_agent.") and name.split(".")[1] not in OF_THE_AGENT_FOR_THE_CONTROLLER
    ]
    assert wrong == []


def test_libraries_are_behind_one_package_each() -> None:
    wrong = []
    for package in SOURCES:
        for path, _ in modules(package):
            where = str(path.relative_to(ROOT))
            for name in imports(path):
                places = ONLY_IN.get(name.partition(".")[0])
                if places is not None and not where.startswith(places):
                    wrong.append(f"{where} imports {name}")
    assert wrong == []


def test_the_agent_needs_the_standard_library_and_h11_alone() -> None:
    known = sys.stdlib_module_names | {"hawse_agent", "h11"}
    found = {name.partition(".")[0] for path, _ in modules("hawse_agent") for name in imports(path)}
    assert found - known == set()


def run_python(code: str, *arguments: str) -> str:
    """In a fresh interpreter, whose modules nobody else has imported."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_controller_runs_where_linux_is_not() -> None:
    """A Mac has neither the libraries that ctypes opens nor netlink."""
    code = """
import importlib, sys
for name in ("pyroute2", "hawse_agent.linux", "hawse_agent.network", "hawse_agent.engine"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    names = [
        ".".join(path.relative_to(SOURCES["hawse"]).with_suffix("").parts).removesuffix(".__init__")
        for path, _ in modules("hawse")
    ]
    run_python(code, *(name for name in names if not name.endswith("__main__")))


@pytest.mark.parametrize(
    "module",
    [
        "hawse_agent.dial",
        "hawse_agent.network.dns",
        "hawse_agent.runtime",
        "hawse_agent.supervise.shim",
        "hawse_agent.supervise.zygote",
        "hawse_agent.zygote_main",
    ],
)
def test_what_must_stay_small_imports_nothing_heavy(module: str) -> None:
    """Forked for every container, or started for every connection."""
    heavy = {
        "asyncio",
        "h11",
        "http",
        "logging",
        "multiprocessing",
        "sqlite3",
        "ssl",
        "threading",
        "urllib.request",
    }
    assert loaded_by(f"import {module}") & heavy == set()


@pytest.mark.parametrize(
    ("code", "most"),
    [
        # What an import costs, without a clock: dial runs for every connection, the command for every verb.
        ("import hawse_agent.dial", 40),
        ("import hawse_agent.zygote_main", 170),
        ("import hawse.cli.main", 110),
    ],
)
def test_little_is_imported_to_start(code: str, most: int) -> None:
    assert len(loaded_by(code)) <= most


def loaded_by(code: str) -> set[str]:
    """Modules that this imports. Without site, whose hooks bring in some of their own."""
    prefix = f"import sys; sys.path[:0] = {[str(SOURCES['hawse_agent']), str(SOURCES['hawse']), *SITE]!r}\n"
    bare = "print(*sys.modules)"
    done = [
        subprocess.run(
            [sys.executable, "-IS", "-c", prefix + lines], capture_output=True, text=True, check=True
        )
        for lines in (bare, f"{code}\n{bare}")
    ]
    before, after = (set(result.stdout.split()) for result in done)
    return after - before


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by that name alone: a second one is an error of the whole run."""
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert sorted(names) == sorted(set(names))
