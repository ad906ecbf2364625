"""What the command line takes and refuses; nothing here reaches a host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hawse.cli import main as cli
from hawse.cli.main import MODULES, main, shown_command, verb_parser, verbs
from hawse.cli.times import moment
from hawse_agent.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAWSE_HOST", raising=False)
    monkeypatch.setenv("HAWSE_SOCKET", str(tmp_path / "no.sock"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hawse: ") and "Traceback" not in err
    return err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "version"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"version", "python"}


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for known in MODULES.values():
        for verb in known:
            assert f"  {verb} " in shown


@pytest.mark.parametrize(("module", "names"), MODULES.items())
def test_table_and_modules_agree(module: str, names: tuple[str, ...]) -> None:
    found = verbs(module)
    assert tuple(verb.name for verb in found) == names
    for verb in found:
        assert verb.help and verb.help[0].islower()
        verb_parser(verb).format_help()


def test_help_of_verbs_with_dockers_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """-h is help unless it is a flag of the verb's own."""
    assert main(["run", "--rm", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: hawse run [OPTIONS] IMAGE [COMMAND …]" in shown
    assert "-h, --hostname" in shown.replace("-h NAME, --hostname NAME", "-h, --hostname")
    assert "--gpus" not in shown
    assert main(["exec", "-h"]) == 0
    assert "--privileged" in capsys.readouterr().out


def test_nothing_at_all_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "VERB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nonsense", "no such verb: nonsense"),
        ("statsu", "did you mean `hawse stats`?"),
        ("volume", "one of: volume ls, volume backup, volume restore"),
        ("volume lss", "did you mean `hawse volume ls`?"),
        ("--nonsense ps", "unrecognized arguments: --nonsense"),
        ("ps --nonsense", "unrecognized arguments: --nonsense"),
        ("-f 0 ps", "not a number from 1 up"),
        ("--timeout x ps", "argument --timeout"),
        ("-H", "expected one argument"),
        ("exec", "CONTAINER"),
        ("exec web", "no command"),
        ("ssh all", "no command"),
        ("logs web --tail many", "--tail many"),
        ("logs web --since yesterday", "not a time"),
        ("ps --filter name", "expected KEY=VALUE"),
        ("exec -e =x web ls", "invalid environment variable: =x"),
        ("exec --nosuch web ls", "unknown flag: --nosuch"),
        ("exec --detach-keys ctrl-1 web ls", "Invalid detach keys (ctrl-1)"),
        ("-H a,b -i a,b start -a web", "a terminal is for one host"),
        ("start", "which container?"),
        ("start -a one two", "multiple containers"),
        ("attach one two", "which container?"),
        ("-H a,b -i a,b exec -it web sh", "-i and -t are for one host"),
        ("host remove", "PATTERN"),
        ("-i nowhere.ini inventory", "no such inventory: nowhere.ini"),
        ("-i a,b status c", "no host and no group matches 'c'"),
        ("-i a,b -l '!a,!b' status", "no host matches 'all' with --limit"),
        ("status", "name an inventory"),
        ("volume restore data nothing.tar.zst", "no such backup: nothing.tar.zst"),
        ("image import nothing.tar x", "no such file: nothing.tar"),
        ("--project nowhere inventory", "there is no hawse.toml in nowhere"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    import shlex

    assert message in refused(capsys, *shlex.split(words))


@pytest.mark.parametrize("words", ["pull x", "push x", "import x.tar", "load -i x.tar", "save x -o x.tar"])
def test_verbs_about_images_held_here_take_no_hosts(capsys: pytest.CaptureFixture[str], words: str) -> None:
    said = refused(capsys, "-H", "web", "image", *words.split())
    assert "held here" in said and f"hawse -H PATTERN {words.split()[0]}" in said


def test_an_agent_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["ps"]) == 4
    assert capsys.readouterr().err.startswith(f"hawse: no agent at {tmp_path / 'no.sock'}: ")


def test_every_host_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-i", "a.invalid,b.invalid", "-e", "ansible_host=[", "ssh", "all", "--", "true"]
    assert main(words) == 4
    err = capsys.readouterr().err
    assert "\nb.invalid: " in f"\n{err}" and "\na.invalid: " in f"\n{err}"


def test_options_may_stand_after_a_verb_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from hawse.cli.verb import Globals, Verb, merged

    verb = Verb(name="x", help="x", run=lambda context, options: 0, also=("extra_vars", "forks"))
    before = merged(Globals(), cli.top_parser().parse_args(["-e", "a=1", "-f", "3", "x"]))
    after = merged(before, verb_parser(verb).parse_args(["-e", "b=2", "-f", "4"]))
    assert (after.extra_vars, after.forks) == (("a=1", "b=2"), 4)
    with pytest.raises(InputError):
        verb_parser(verb).parse_args(["-l", "x"])


def test_only_the_verb_is_imported() -> None:
    script = (
        "import sys; from hawse.cli.main import main; main(['version']);"
        "bad = {'rich', 'jinja2', 'pydantic', 'paramiko', 'yaml'} & set(sys.modules);"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["site.yml", "--check"], "play site.yml --check"),
        (["a b.yml", "-e", "password=x"], "play 'a b.yml' -e 'password=…'"),
        (["-e", '{"password": "x"}'], "play -e '…'"),
        (["-epassword=x", "--extra-vars=token=y"], "play '-epassword=…' '--extra-vars=token=…'"),
        (["-e", "@secrets.yml"], "play -e @secrets.yml"),
    ],
)
def test_the_history_sees_no_secrets(words: list[str], shown: str) -> None:
    assert shown_command("play", words) == shown


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("login", ["-u", "me", "-p", "s3cret", "reg"]),
        ("login", ["-ps3cret", "--password=s3cret"]),
        ("build", ["--build-arg", "TOKEN=s3cret", "--build-arg=TOKEN=s3cret", "."]),
    ],
)
def test_secrets_of_other_verbs_are_not_kept(verb: str, words: list[str]) -> None:
    assert "s3cret" not in shown_command(verb, words)


def test_completion_knows_the_verbs_about_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for verb in ("pull", "push", "search", "login", "commit", "build", "builder prune", "image push"):
        assert f"        {verb!r}) words=" in script
    assert "--no-cache" in script and "'image send') words=" in script and "--all-platforms" in script


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", "3400.000"),
        ("1h30s", "370.000"),
        ("1700000000", "1700000000"),
        ("1970-01-01T00:01:00Z", "60.000000"),
        ("1970-01-01T00:01:00.123456789Z", "60.123456"),
        ("1.5h500ms", "-1400.500"),
    ],
)
def test_moments(text: str, seconds: str) -> None:
    assert moment(text, 4000.0) == seconds


def test_a_bug_is_called_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_find", lambda *_: 1 / 0)
    assert main(["ps"]) == 250
    assert "this is a bug of hawse" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "ps"])


def test_inventory(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hosts.ini").write_text("[web]\nweb1 port=1\nweb2\n")
    assert main(["-i", "hosts.ini", "inventory", "--graph", "web"]) == 0
    assert main(["-i", "hosts.ini", "inventory", "--host", "web1"]) == 0
    assert main(["-i", "hosts.ini", "-l", "!web1", "inventory", "--match", "web"]) == 0
    assert capsys.readouterr().out == '@web:\n  |--web1\n  |--web2\n{\n    "port": 1\n}\nweb2\n'
