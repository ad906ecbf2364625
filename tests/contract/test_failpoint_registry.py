"""Each step of create, start, stop and remove has a failpoint: in the registry, and in the code before it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hawse_agent import failpoints
from hawse_agent.runtime import init

AGENT = Path(failpoints.__file__).parent

OPERATIONS = {
    # Where the steps of an operation are: file → function → who, when called there, is a step.
    "engine/containers.py": {
        "_create": ("_volumes.make", "_volumes.populate", "_make_directory", "_state", "rename"),
        "_start": ("_volumes", "_networks.lease", "_save", "_prepare", "_write_config", "start", "_watcher"),
        "_stop": ("_save", "_ask_to_end", "live.wait"),
        "_remove": ("_save", "_networks", "_forget_run", "_remove_tree", "_volumes", "_state"),
    },
    "engine/builds.py": {"_image": ("_images.add",)},
    "build/cache.py": {"save": ("put_build_steps",), "_keep_layers": ("keep_layers",)},
    "supervise/client.py": {"start": ("configure_network", "before_run")},
    "supervise/shim.py": {
        "_listen": ("mkdir",),
        "_make": ("Maker",),
        "_started": ("_tell",),
        "_run": ("_change",),
        "_ended": ("replace", "_streams.end"),
        "_run_over": ("remove",),
        "_next_run_or_leave": ("_write_state", "_tell"),
        "_restart": ("_make",),
        "_finish": ("_tell",),
        "_clean_up": ("rmtree",),
        "_kill": ("_signal",),
    },
    "supervise/jobs.py": {"__call__": ("spawn", "_tell", "spawned.go", "end.running")},
    "runtime/create.py": {"prepare": ("_make_cgroup", "_parent.cgroup", "wait_until_ready")},
}


def functions(path: str) -> dict[str, ast.FunctionDef]:
    """By name; of several the outermost, which is first."""
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(ast.parse((AGENT / path).read_text())):
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, node)
    return found


def reached(node: ast.AST) -> Iterator[str]:
    """Names of the failpoints in it."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "reach":
            (name,) = call.args
            yield ast.unparse(name).strip("'\"")


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The simple ones in order, but for those of `except` and `finally`: to undo is no step."""
    for statement in body:
        blocks = [getattr(statement, name, []) for name in ("body", "orelse")]
        if not any(blocks):
            yield statement
        for block in blocks:
            yield from statements(block)


def is_step(statement: ast.stmt, steps: tuple[str, ...]) -> bool:
    called = [ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(f".{step}." in f".{name}." for name in called for step in steps)


@pytest.mark.parametrize(
    ("path", "function"), [(path, name) for path, names in OPERATIONS.items() for name in names]
)
def test_no_step_is_without_a_failpoint(path: str, function: str) -> None:
    """Between one step and the next there is one."""
    steps = OPERATIONS[path][function]
    bare, found, passed = [], 0, False
    for statement in statements(functions(path)[function].body):
        if list(reached(statement)):
            passed = True
        if is_step(statement, steps):
            found += 1
            if not passed:
                bare.append(f"{path}:{statement.lineno}: {ast.unparse(statement)}")
            passed = False
    assert found and bare == []


def test_each_registered_step_has_one_place() -> None:
    places = Counter(
        name
        for path in sorted(AGENT.rglob("*.py"))
        if path.name != "failpoints.py"
        for name in reached(ast.parse(path.read_text()))
        if not name.startswith("f'init: ")
    )
    assert places == Counter(failpoints.names())


def test_each_step_of_the_first_process_is_reached() -> None:
    """They are one list, and the loop over it passes them all."""
    assert init.STEPS
    run = functions("runtime/init.py")["run"]
    loops = [node for node in ast.walk(run) if isinstance(node, ast.For)]
    assert [ast.unparse(loop.iter) for loop in loops] == ["STEPS"]
    assert ast.unparse(loops[0].body[0]) == "_next(init, step)"
    assert list(reached(functions("runtime/init.py")["_next"])) == ["f'init: {step}"]


def test_they_are_inert() -> None:
    """Without the variable nothing is looked up."""
    assert failpoints._directory == -1
    for name in failpoints.names():
        failpoints.reach(name)
