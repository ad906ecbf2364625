"""How a change of content is shown."""

from __future__ import annotations

from hawse_agent.provision import diff


def test_a_new_file_comes_from_nothing() -> None:
    assert diff.unified(None, b"a\n", "/etc/x") == "--- /dev/null\n+++ /etc/x\n@@ -0,0 +1 @@\n+a\n"


def test_the_missing_newline_at_the_end_shows() -> None:
    shown = diff.unified(b"a\n", b"a", "x")
    assert shown.endswith("-a\n+a\n\\ No newline at end of file\n")


def test_equal_contents_have_no_difference() -> None:
    assert diff.unified(b"a\n", b"a\n", "x") == ""


def test_binary_contents_are_not_shown() -> None:
    assert diff.unified(b"a\0b", b"longer than before", "x") == (
        "x: not text, or too long to show (3 bytes → 18 bytes)\n"
    )


def test_a_long_difference_is_cut() -> None:
    after = b"".join(b"%d\n" % number for number in range(1000))
    lines = diff.unified(b"", after, "x").splitlines()
    assert len(lines) == diff.LINES + 1
    assert lines[-1] == "… 603 more lines"
