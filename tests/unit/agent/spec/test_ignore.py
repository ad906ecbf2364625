""".dockerignore, by the rules of moby's patternmatcher; the docker command's own contexts are the judge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.contextrecorder import Recorder, recording

from hawse_agent.errors import InputError
from hawse_agent.spec.ignore import Ignore, Matched, candidates


@pytest.mark.parametrize(
    ("text", "path", "excluded"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("a", "ab", False),
        ("/a", "a", True),
        ("./a/", "a", True),
        ("a/../b", "b", True),
        ("  a  ", "a", True),
        ("a\r\nb\r\n", "b", True),
        ("\ufeffa", "a", True),
        ("#a", "#a", False),
        (" #a", "#a", True),
        ("../a", "a", False),
        ("/", "a", False),
        ("a/b", "a/b/c", True),
        ("a/b", "a/c", False),
        # wildcards
        ("*", "a/b", True),
        ("*.c", "a.c", True),
        ("*.c", "d/a.c", False),
        ("*/a", "d/a", True),
        ("*/a", "d/e/a", False),
        ("a?", "ab", True),
        ("a?", "a/b", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("a.c", "abc", False),
        ("a+(b)|{c}$", "a+(b)|{c}$", True),
        # **
        ("**", "a/b", True),
        ("**/", "a", True),
        ("**/a", "a", True),
        ("**/a", "d/e/a", True),
        ("**/a", "d/e/ba", False),
        ("**a", "d/ba", True),
        ("**/*.c", "a.c", True),
        ("**/*.c", "d/e/a.c", True),
        ("**/a/b", "x/a/b", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True),
        ("a/**/b", "ab", False),
        ("a**", "abc/d", True),
        ("**/dir2/*", "dir/dir2/x", True),
        ("**/dir2/**", "dir/dir2/x/y", True),
        ("**/dir2/*", "dir/dir2", False),
        # exceptions: the last that matches decides
        ("a\n!a", "a", False),
        ("!a\na", "a", True),
        ("a\n!a/b", "a/b", False),
        ("a\n!a/b", "a/b/c", False),
        ("a\n!a/b", "a/c", True),
        ("a\n!a/b\na/b/c", "a/b/c", True),
        ("*\n!x", "x/y", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("d\n! /d/x", "d/x", False),
        ("!!a", "a", False),
        # what a directory did not need to be asked for does not count below it
        ("**/*.c\n!d", "d/a.c", True),
    ],
)
def test_rules(text: str, path: str, excluded: bool) -> None:
    assert Ignore.parse(text).excludes(path) is excluded


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n!\n", 2, "'!' alone excepts nothing"),
        ("!/.", 1, "'!/' excepts nothing"),
        ("#\n\n[", 3, "invalid pattern '['"),
        ("a\\", 1, "invalid"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Ignore.parse(text, file="x/.dockerignore")
    assert caught.value.message.startswith(f"x/.dockerignore:{line}: {said}")


def test_the_dockerfiles_own_file_comes_first() -> None:
    assert candidates("docker/web.Dockerfile") == ("docker/web.Dockerfile.dockerignore", ".dockerignore")


def test_what_the_build_needs_is_sent_all_the_same() -> None:
    ignore = Ignore.parse("*\n")
    sent = ignore.without("Dockerfile", ".dockerignore")
    assert ignore.excludes("Dockerfile")
    assert not sent.excludes("Dockerfile") and not sent.excludes(".dockerignore")
    assert sent.excludes("a")


@pytest.mark.parametrize(
    ("text", "directory", "below"),
    [
        ("a\n!a/b/c", "a", True),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!a/b/c", "b", False),
        ("a\n!ab", "a", False),
        ("*\n!**/x", "any/where", True),
        ("*\n!src/*/x", "src/y", True),
        ("*\n!src/*/x", "lib", False),
        ("*", "a", False),
    ],
)
def test_where_a_walk_must_go_on(text: str, directory: str, below: bool) -> None:
    assert Ignore.parse(text).keeps_below(directory) is below


# The docker command sends its contexts to a daemon that keeps them.


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command")
    with recording(tmp_path_factory.mktemp("s") / "docker.sock") as server:
        yield server


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("context")
    for path in (
        *("Dockerfile", "README.md", "README-secret.md", "main.c", "main.o", "#x", "x!y"),
        *("src/main.c", "src/main.o", "src/deep/er/a.c", "src/deep/er/a.o", "src/keep/b.o"),
        *("docs/a.md", "docs/README.md", "node_modules/x/index.js", ".git/config", "build/Dockerfile"),
    ):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("FROM scratch\n")
    (top / "empty").mkdir()
    (top / "link").symlink_to("src")
    return top


def ours(top: Path, ignore: Ignore) -> set[str]:
    """Names of a walk as who writes a context makes it."""
    found: set[str] = set()

    def walk(directory: str, above: Matched) -> None:
        for entry in os.scandir(top / directory):
            path = os.path.relpath(entry.path, top)
            excluded, matched = ignore.look(path, above)
            if not excluded:
                found.add(path)
            if entry.is_dir(follow_symlinks=False) and (not excluded or ignore.keeps_below(path)):
                walk(path, matched)

    walk("", ())
    return found


FILES = {
    "nothing": "",
    "names": "main.o\nsrc/deep\n/docs\n",
    "wildcards": "*.o\nsrc/*.c\n[R]EADME?md\n",
    "any depth": "**/*.o\n**/node_modules\n.git\n",
    "all but": "*\n!src\n",
    "all but some in depth": "*\n!src/deep/er/a.c\n!docs\ndocs/a.md\n",
    "order": "*.md\n!README*.md\nREADME-secret.md\n",
    "order turned": "*.md\nREADME-secret.md\n!README*.md\n",
    "exception below, undone": "src\n!src/deep\nsrc/deep/er/a.o\n",
    "a directory's exception does not help its files": "**/*.o\n!src\n",
    "comments, blanks, byte order mark": "\ufeff#main.c\n\n  main.o  \n #x\n",
    "cleaned": "./src/../main.c\n/src/keep/\n! /src/keep/b.o\ndocs//a.md\n",
    "the build's own files": "Dockerfile\n.dockerignore\nbuild\n",
    "prefix and suffix": "src/**\n**md\n",
    "in the middle": "src/**/er\n",
    "a link": "link\nempty\n",
    "everything": "**\n",
    "escapes": "\\#x\nx\\!y\n",
}


@pytest.mark.parametrize("name", FILES)
def test_contexts_are_those_of_the_docker_command(name: str, recorder: Recorder, context: Path) -> None:
    (context / ".dockerignore").write_text(FILES[name])
    theirs = {entry.name for entry in recorder.context(str(context))} - {"."}
    ignore = Ignore.parse(FILES[name]).without("Dockerfile", ".dockerignore")
    assert ours(context, ignore) == theirs
