"""The init of containers: its machine code is what its listing says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hawse_agent.linux.syscalls import Abi, table
from hawse_agent.runtime.reaper import LISTINGS, code, elf

TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


@pytest.mark.parametrize("abi", LISTINGS)
@pytest.mark.skipif(shutil.which("llvm-mc") is None, reason="needs llvm-mc")
def test_an_assembler_makes_the_same_of_it(abi: Abi, tmp_path: Path) -> None:
    source = [".intel_syntax noprefix"] if abi == "x86_64" else []
    for line in LISTINGS[abi].splitlines():
        source.append(_instruction(line) if line.startswith(" ") else line)
    (tmp_path / "source.s").write_text("\n".join(source) + "\n")
    made = tmp_path / "made.o"
    command = ["llvm-mc", f"-triple={TRIPLES[abi]}", "-filetype=obj", tmp_path / "source.s", "-o", made]
    subprocess.run(command, check=True)
    assert code(LISTINGS[abi]) in made.read_bytes()


def _instruction(line: str) -> str:
    return line.split(maxsplit=1)[1].partition("  #")[0]


@pytest.mark.parametrize("abi", LISTINGS)
def test_it_makes_the_calls_that_it_says(abi: Abi) -> None:
    register = {"x86_64": "mov eax, ", "aarch64": "mov x8, #"}[abi]
    found = [_instruction(line) for line in LISTINGS[abi].splitlines() if line.startswith(" ")]
    numbers = {int(text.removeprefix(register)) for text in found if re.match(rf"{register}\d", text)}
    names = ("prctl", "rt_sigprocmask", "wait4", "rt_sigtimedwait", "kill", "exit_group")
    assert numbers == {table(abi)[name] for name in names}


@pytest.mark.parametrize("abi", LISTINGS)
def test_it_is_small(abi: Abi) -> None:
    assert elf(abi).startswith(b"\x7fELF")
    assert len(elf(abi)) < 512
