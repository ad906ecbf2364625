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

OPERATIONS: dict[str, tuple[str, ...]] = {
    # Where the steps of create, start, stop and remove are: file → functions.
    "engine/containers/creation.py": ("create", "_create"),
    "engine/containers/starting.py": ("start", "run"),
    "engine/containers/control.py": ("stop", "end"),
    "engine/containers/removal.py": ("remove", "carry_out"),
    "engine/builds.py": ("_image",),
    "build/cache.py": ("save", "_keep_layers"),
    "supervise/client.py": ("start",),
    "supervise/jobs.py": ("__call__",),
    "runtime/create.py": ("prepare", "go"),
    "supervise/shim.py": (
        *("_listen", "_make", "_started", "_run", "_ended", "_output_over", "_run_over"),
        *("_next_run_or_leave", "_restart"),
        *("_restarted", "_finish", "_clean_up", "_stop", "_kill"),
    ),
}

# Every call in them is a step, but for those that are named here, and why.
NO_STEPS: dict[str, str] = {
    "makes a value of values": """
        replace ContainerRecord ContainerState ContainerView HealthView Lease Health Start ShimClient
        Started Path int float str list isinstance len json.loads event.get names.new_id
        codec.loads self._paths.container self._paths.new_container self._paths.record_copy self._as_json
        health.as_json restarts _there _with_files frozenset codec.dumps draft.encoded self._records.values
        self._layers.items kept.keys kept.values""",
    "looks at what is there": """self._register.record self._register.find self._register.known
        self._images.get self._images.layer_dirs time.time time.monotonic self._sharing.has_own_ids
        self._sharing.pinned self._grace self._stop_signal self._volumes.plan self._volumes.inherited
        self._here os.access cgroup.oom_kills spawned.cgroup.oom_notifier self._cgroup""",
    "refuses": """InputError Conflict HostRefused _start_failed checks.check resolve.check_platform
        resolve.command_line resolve.signal_number seccomp.check self._networks.check""",
    "is of this process alone, and ends with it": """self._images.using self._register.holding_name
        self._register.removing self._register.add live.set self._announce.container self._announce.started
        close_all self._attaching.take self._attaching.attach_late connection.settimeout
        self._watchers.append self._loop.after self._loop.remove self._watch_memory
        self._stop_watching_memory self._plan_probe self._stop_health
        self._deadline.cancel self._restarting.cancel self._backoff.delay patience.cancel self._new_streams
        self._streams.started self._maker.give_up self._unsaved.clear""",
    "closes descriptors": """os.close _close self._parent.close self._listener.close self._listener.fileno
        self._close_pidfd self._log.close self._leave""",
    "waits for what another process says": "end.wait_for_go self._parent.wait_until_ready _receive_line "
    "_receive_line_with_fds",
}
NO_STEPS_HERE: dict[tuple[str, str], dict[str, str]] = {
    ("engine/containers/removal.py", "remove"): {
        "self._control.ask_to_end": "an early word, for who waits: `end` asks again, with a failpoint",
        "self._control.end": "has its own failpoints",
    },
    ("engine/containers/removal.py", "carry_out"): {
        "self._images.touch": "when an image was used last: only a time stamp, of which nothing else hangs",
    },
    ("supervise/client.py", "start"): {
        "starter.start_shim": "its failpoint, 'start: shim', is in the only caller, directly before",
    },
    ("runtime/create.py", "go"): {
        "self._parent.go": "its failpoint, 'shim: go', is in the only caller, directly before",
    },
    ("supervise/shim.py", "_listen"): dict.fromkeys(
        (
            *("os.makedirs", "os.unlink", "socket.socket", "listener.setblocking", "files.bind", "os.chmod"),
            *("listener.listen", "listener.fileno", "self._loop.add", "self._accept"),
        ),
        "one step, 'listen': nobody asks for the socket before the next, and its directory goes with the run",
    ),
    ("supervise/shim.py", "_output_over"): {
        "self._log.flush": "goes on with what 'shim: drain' stands before",
    },
    ("supervise/shim.py", "_stop"): {
        "self._change": "only where nothing runs: a shim that dies has waited for a restart, then as before",
        "self._write_state": "as above",
        "self._tell": "only an event, which nothing hangs on",
        "self._thaw": "what is frozen stays so when its shim dies, before the signal as after",
    },
    ("supervise/shim.py", "_kill"): {
        "self._tell": "only an event, which nothing hangs on",
        "self._let_die": "thaws, as `_thaw` of `_stop`",
    },
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


def statements(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The simple ones and the heads of the others in order, but for `except` and `finally`: to undo is no
    step."""
    for statement in body:
        blocks = [getattr(statement, name, []) for name in ("body", "orelse")]
        cases = getattr(statement, "cases", [])
        if not any(blocks) and not cases:
            yield statement
            continue
        for name in ("test", "iter", "subject"):
            if (head := getattr(statement, name, None)) is not None:
                yield head
        for item in getattr(statement, "items", []):
            yield item.context_expr
        for block in (*blocks, *(case.body for case in cases)):
            yield from statements(block)


def is_step(call: ast.Call, path: str, function: str) -> bool:
    """Not where it only leads to another function that is looked at here."""
    called = ast.unparse(call.func)
    others = {f"self.{name}" for name in OPERATIONS[path]} | {"spawned.prepare"}
    allowed = {name for names in NO_STEPS.values() for name in names.split()}
    allowed |= NO_STEPS_HERE.get((path, function), {}).keys()
    return called not in others and called not in allowed


def own_calls(statement: ast.AST) -> Iterator[ast.Call]:
    """In the order in which they are made; not those of callbacks, which somebody else makes."""
    pending = [statement]
    found = []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            found.append(node)
        pending += ast.iter_child_nodes(node)
    return iter(sorted(found, key=lambda call: (call.end_lineno or 0, call.end_col_offset or 0)))


@pytest.mark.parametrize(
    ("path", "function"), [(path, name) for path, names in OPERATIONS.items() for name in names]
)
def test_no_step_is_without_a_failpoint(path: str, function: str) -> None:
    """Between one step and the next there is one."""
    bare, passed = [], False
    for statement in statements(functions(path)[function].body):
        for call in own_calls(statement):
            if ast.unparse(call.func) == "reach":
                passed = True
            elif is_step(call, path, function):
                if not passed:
                    bare.append(f"{path}:{call.lineno}: {ast.unparse(call.func)}")
                passed = False
    assert bare == []


def test_what_is_no_step_is_called() -> None:
    """A name that nothing needs any more would let in another call of that name."""
    called: dict[tuple[str, str], set[str]] = {}
    for path, names in OPERATIONS.items():
        for name in names:
            calls = ast.walk(functions(path)[name])
            called[path, name] = {ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)}
    everywhere = set().union(*called.values())
    assert {name for names in NO_STEPS.values() for name in names.split()} - everywhere == set()
    for place, allowed in NO_STEPS_HERE.items():
        assert allowed.keys() <= called[place]


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
