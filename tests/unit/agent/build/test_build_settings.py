"""What instructions do to settings, where files go, and what of the cache goes: without an engine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.build import configuration, context, draft, placing, secrets, values, walk
from hawse_agent.build.cache import Usage, key, to_remove
from hawse_agent.build.parser import parse
from hawse_agent.errors import InputError
from hawse_agent.paths import paths_for


def changed(config: dict[str, Any], line: str, *, own_command: bool = False) -> tuple[dict[str, Any], str]:
    (instruction,) = parse(f"FROM scratch\n{line}\n").stages[0].instructions
    change = configuration.change(config, instruction, own_command=own_command)
    return configuration.changed(config, change.settings), change.comment


@pytest.mark.parametrize(
    ("config", "line", "expected", "comment"),
    [
        ({}, "CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}, 'CMD ["/bin/sh" "-c" "echo hi"]'),
        ({"Shell": ["ash"]}, "CMD x", {"Shell": ["ash"], "Cmd": ["ash", "x"]}, 'CMD ["ash" "x"]'),
        ({"Cmd": ["a"]}, 'ENTRYPOINT ["b"]', {"Entrypoint": ["b"]}, 'ENTRYPOINT ["b"]'),
        ({"Env": ["A=1", "B=2"]}, "ENV A=3 C=4", {"Env": ["A=3", "B=2", "C=4"]}, "ENV A=3 C=4"),
        ({"Labels": {"a": "1"}}, "LABEL b=2", {"Labels": {"a": "1", "b": "2"}}, "LABEL b=2"),
        ({}, "EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}, "EXPOSE 53/udp 80"),
        ({}, "HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}, None),
        ({}, "STOPSIGNAL 9", {"StopSignal": "9"}, "STOPSIGNAL 9"),
    ],
)
def test_settings(config: dict[str, Any], line: str, expected: dict[str, Any], comment: str | None) -> None:
    assert changed(config, line)[0] == expected
    assert comment is None or changed(config, line)[1] == comment


def test_an_entrypoint_leaves_a_command_of_its_own_stage() -> None:
    config, _ = changed({"Cmd": ["a"]}, 'ENTRYPOINT ["b"]', own_command=True)
    assert config == {"Cmd": ["a"], "Entrypoint": ["b"]}


@pytest.mark.parametrize(
    ("here", "path", "there"),
    [("", "a", "/a"), ("/a", "b", "/a/b"), ("/a", "/b/", "/b"), ("/a/b", "../c", "/a/c"), ("/", "..", "/")],
)
def test_working_directories(here: str, path: str, there: str) -> None:
    assert configuration.working_directory({"WorkingDir": here}, path) == there


@pytest.mark.parametrize(
    ("path", "there"),
    [(".", "/w/"), ("x", "/w/x"), ("x/", "/w/x/"), ("/", "/"), ("../y", "/y"), ("/a//b/.", "/a/b/")],
)
def test_destinations(path: str, there: str) -> None:
    assert placing.destination("/w", path) == there


def test_a_scratch_image_says_where_programs_are_and_is_what_its_steps_made_it() -> None:
    empty = draft.scratch()
    assert empty.id == "" and empty.variables() == {"PATH": draft.DEFAULT_PATH}
    step = empty.with_step(created="2026-01-01T00:00:00Z", created_by="x")
    assert step.id == step.with_step(created="", created_by="y").id or step.id.startswith("sha256:")
    assert step.history == ({"created": "2026-01-01T00:00:00Z", "created_by": "x", "empty_layer": True},)


def test_keys_know_what_goes_in_and_in_which_order() -> None:
    assert key("run", ["a"], {"x": 1, "y": 2}) == key("run", ("a",), {"y": 2, "x": 1})
    assert (
        len({key("run", "a", "b"), key("run", "b", "a"), key("copy", "a", "b"), key("run", ["a", "b"])}) == 4
    )


def usage(name: str, used: float, size: int, **more: bool) -> Usage:
    return Usage(id=name, kind="regular", description="", size=size, made=0, used=used, uses=1, **more)


def test_what_goes_is_what_was_longest_unused() -> None:
    every = [
        usage("new", 3, 10),
        usage("old", 1, 10),
        usage("shared", 0, 99, shared=True),
        usage("mid", 2, 10),
    ]
    busy = usage("busy", 0, 10, in_use=True)

    def going(**more: int) -> list[str]:
        return [one.id for one in to_remove([*every, busy], lambda _: True, **more)]

    assert going() == ["shared", "old", "mid", "new"]
    assert going(keep_bytes=30) == ["old"]
    assert going(keep_bytes=25) == ["old", "mid"]
    assert going(keep_bytes=100) == []


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_digests_do_not_know_times_nor_holes(tmp_path: Path) -> None:
    root = opened(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x" + bytes(100_000) + b"y")
    os.link(tmp_path / "d/f", tmp_path / "d/g")

    def digest() -> str:
        return walk.digest(walk.walk(root, "d"), owners=False)

    before = digest()
    with (tmp_path / "d/f").open("r+b") as file:  # the same bytes, with a hole
        file.truncate(0)
        file.write(b"x")
        file.seek(100_001)
        file.write(b"y")
    os.utime(tmp_path / "d/f", (1, 1))
    assert digest() == before
    (tmp_path / "d/f").chmod(0o600)
    assert digest() != before
    os.close(root)


def archive(*members: tarfile.TarInfo) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    data.seek(0)
    return data


def member(name: str, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")
def test_a_context_stays_in_its_directory(tmp_path: Path) -> None:
    tree, outside = tmp_path / "in", tmp_path / "out"
    tree.mkdir()
    outside.mkdir()
    hostile = archive(
        member("link", type=tarfile.SYMTYPE, linkname=str(outside)),
        member("link/file", size=3),
        member("/absolute", size=1),
    )
    with context.received(hostile, tree) as received:
        assert list(outside.iterdir()) == []
        assert (tree / "absolute").exists()
        with pytest.raises(InputError, match="Cannot locate specified Dockerfile: Dockerfile"):
            received.dockerfile("")
    with pytest.raises(InputError, match="leads out"), context.received(archive(member("../x")), outside):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")
def test_chmod_of_what_is_placed(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/f").write_text("x")
    source, root = opened(tmp_path / "from"), opened(tmp_path / "to")
    placed = placing.Placed(destination="/a/b", owner=(1, 2), mode=values.mode("u=rwX,go="))
    placing.put_directory(root, placed, walk.walk(source, "."))
    found = {
        path: (oct(status.st_mode & 0o7777), status.st_uid)
        for path in ("a", "a/b", "a/b/f")
        if (status := os.stat(tmp_path / "to" / path))
    }
    assert found == {"a": ("0o755", 0), "a/b": ("0o700", 1), "a/b/f": ("0o600", 1)}
    os.close(source)
    os.close(root)


def test_secrets_lie_where_nobody_else_looks(tmp_path: Path) -> None:
    secrets.write(tmp_path / "s", b"x", mode=0o440, uid=os.geteuid(), gid=os.getegid())
    assert oct((tmp_path / "s").stat().st_mode) == "0o100440"
    with pytest.raises(FileExistsError):
        secrets.write(tmp_path / "s", b"y")


def test_secrets_that_a_crash_left_are_swept_and_no_other_instances(tmp_path: Path) -> None:
    own = paths_for(tmp_path)
    with secrets.directory(own) as kept:
        secrets.sweep(paths_for(tmp_path / "other"))
        assert kept.exists()
        assert oct(kept.stat().st_mode) == "0o40700"
        (kept / "secret").write_text("x")
        secrets.sweep(own)
        assert not kept.exists()
        kept.mkdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")
def test_what_was_hashed_on_its_way_is_what_lies_there(tmp_path: Path) -> None:
    simple = archive(member("d", type=tarfile.DIRTYPE), member("d/f", size=70_000), member("./g", size=3))
    with context.received(simple, tmp_path) as received:
        assert sorted(received.digests) == ["d/f", "g"]
        for path, below in (("d", "d/"), ("g", ""), (".", "")):
            read = walk.digest(walk.walk(received.root, path), owners=False)
            assert (
                walk.digest(walk.walk(received.root, path), owners=False, known=received.digests, below=below)
                == read
            )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are set")
@pytest.mark.parametrize(
    "members",
    [
        [member("f", size=1), member("f", size=2)],
        [member("d/f", size=1), member("l", type=tarfile.SYMTYPE, linkname="d"), member("l/f", size=2)],
        [member("d/f", size=1), member("d", type=tarfile.SYMTYPE, linkname="e"), member("e/f", size=2)],
        [member("f", size=1), member("f", type=tarfile.LNKTYPE, linkname="g")],
    ],
)
def test_nothing_is_believed_of_a_context_that_says_things_twice(
    tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    try:
        with context.received(archive(*members), tmp_path) as received:
            assert received.digests == {}
    except InputError:  # it was refused
        pass
