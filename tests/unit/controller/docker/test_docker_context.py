"""Contexts of builds, judged by what the docker command sends."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.contextrecorder import Recorder, recording

from hawse.docker.context import Context, context
from hawse_agent.errors import InputError, NotSupported

Entry = tuple[str, bytes, int, str, int, int, int]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command")
    with recording(tmp_path_factory.mktemp("s") / "docker.sock") as server:
        yield server


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "context"
    for path in ("Dockerfile", "src/main.c", "src/main.o", "docs/a.md", "sub/Dockerfile"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(f"FROM scratch\n# {path}\n")
    (top / "src/main.c").chmod(0o755)
    (top / "empty").mkdir(mode=0o700)
    (top / "link").symlink_to("/etc/passwd")
    os.link(top / "docs/a.md", top / "docs/b.md")
    (top / "größe").write_text("x")
    (top / ("long" * 40)).write_text("y")
    os.mkfifo(top / "fifo")
    return top


def described(entry: tarfile.TarInfo) -> Entry:
    mode = 0 if entry.issym() or entry.islnk() else entry.mode & 0o7777
    size = 0 if entry.islnk() else entry.size
    return entry.name, entry.type, mode, entry.linkname, size, entry.uid, entry.gid


def entries(made: Context) -> dict[str, Entry]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(made.pieces()))) as tar:
        found = [described(entry) for entry in tar]
    return {entry[0]: entry for entry in found}


def ours(path: Path, dockerfile: str = "", stdin: bytes = b"") -> dict[str, Entry]:
    return entries(context(str(path), dockerfile, io.BytesIO(stdin)))


def theirs(recorder: Recorder, *words: str) -> dict[str, Entry]:
    return {entry.name: described(entry) for entry in recorder.context(*words) if entry.name != "."}


@pytest.mark.parametrize("ignored", ["", "src/*.o\ndocs\n", "*\n!src\n", "Dockerfile\n.dockerignore\nlink\n"])
def test_a_directory_is_sent_as_docker_sends_it(recorder: Recorder, top: Path, ignored: str) -> None:
    if ignored:
        (top / ".dockerignore").write_text(ignored)
    assert ours(top) == theirs(recorder, str(top))
    assert context(str(top), "", io.BytesIO()).dockerfile == "Dockerfile"


def test_a_dockerfile_of_its_own_has_rules_of_its_own(top: Path) -> None:
    """BuildKit's rule, which the classic docker command does not have."""
    (top / ".dockerignore").write_text("src\n")
    (top / "sub/Dockerfile.dockerignore").write_text("docs\nsub\n")
    made = context(str(top), str(top / "sub/Dockerfile"), io.BytesIO())
    assert made.dockerfile == "sub/Dockerfile"
    names = set(entries(made))
    assert {"sub/Dockerfile", "src/main.c", ".dockerignore"} <= names and "docs/a.md" not in names


@pytest.mark.parametrize("by", ["file", "stdin"])
def test_a_dockerfile_outside_is_added(recorder: Recorder, top: Path, tmp_path: Path, by: str) -> None:
    (tmp_path / "Other").write_text("FROM scratch\n")
    (top / ".dockerignore").write_text("docs\n")
    made = (
        context(str(top), str(tmp_path / "Other"), io.BytesIO())
        if by == "file"
        else context(str(top), "-", io.BytesIO(b"FROM scratch\n"))
    )
    found = entries(made)
    assert found.pop(made.dockerfile)[4] == len("FROM scratch\n")
    expected = theirs(recorder, "-f", str(tmp_path / "Other"), str(top))
    outside = next(name for name in expected if name.startswith(".dockerfile."))
    del expected[outside], expected[".dockerignore"], found[".dockerignore"]  # each names its own
    assert found == expected


def test_a_context_may_come_on_stdin(top: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(top / "Dockerfile", "D")
    for packed in (data.getvalue(), gzip.compress(data.getvalue())):
        made = context("-", "D", io.BytesIO(packed))
        assert (made.once, made.dockerfile, b"".join(made.pieces())) == (True, "D", packed)
    alone = context("-", "", io.BytesIO(b"FROM scratch\n"))
    assert list(entries(alone)) == ["Dockerfile"] and not alone.once


@pytest.mark.parametrize(
    ("path", "dockerfile", "kind", "said"),
    [
        ("-", "-", InputError, "both be on stdin"),
        ("-", "D", InputError, "both stdin and --file"),
        ("git@example.org:a/b.git", "", NotSupported, "from elsewhere"),
        ("https://example.org/x.tar.gz", "", NotSupported, "from elsewhere"),
        ("github.com/a/b", "", NotSupported, "from elsewhere"),
        ("/nowhere", "", InputError, "/nowhere is no directory"),
        ("{top}/Dockerfile", "", InputError, "is no directory"),
        ("{top}/src", "", InputError, "no such Dockerfile: .*src/Dockerfile"),
    ],
)
def test_what_is_no_context(top: Path, path: str, dockerfile: str, kind: type[InputError], said: str) -> None:
    with pytest.raises(kind, match=said):
        context(path.format(top=top), dockerfile, io.BytesIO(b"FROM scratch"))


def test_a_bad_pattern_is_named_with_its_line(top: Path) -> None:
    (top / ".dockerignore").write_text("ok\n[\n")
    with pytest.raises(InputError, match=r"\.dockerignore:2: "):
        ours(top)
