"""PID 1 of a container that wants an init: passes signals on, reaps every orphan, ends as the program ends.

A program of its own, so that nothing of what we know stays in the container, and that 8 KiB of memory are all
that it costs. It has no file: the machine code below, with the header that the kernel wants, is executed from
a sealed memfd. It gets the program's pid as its argument, and the program as its child.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import NoReturn

from hawse_agent.linux import sealed, syscalls
from hawse_agent.linux.syscalls import Abi

NAME = "hawse-init"

_ADDRESS = 0x400000
_HEADER, _SEGMENT = struct.Struct("<16s2HI3QI6H"), struct.Struct("<2I6Q")
_MACHINES: Mapping[Abi, int] = {"x86_64": 62, "aarch64": 183}
_EXECUTABLE, _LOAD, _STACK = 2, 1, 0x6474E551
_READ_WRITE, _READ_EXECUTE = 6, 5


def seal() -> int:
    """An owned fd of the program."""
    return sealed.program(NAME, elf(syscalls.native()))


def execute(program: int, main: int) -> NoReturn:
    """Become it, with the process `main` as the program."""
    os.execve(program, [NAME, str(main)], {})


def elf(abi: Abi) -> bytes:
    """One segment to execute, and a stack that is not."""
    text = code(LISTINGS[abi])
    start = _HEADER.size + 2 * _SEGMENT.size
    size = start + len(text)
    header = _HEADER.pack(
        b"\x7fELF\2\1\1", _EXECUTABLE, _MACHINES[abi], 1, _ADDRESS + start, _HEADER.size, 0, 0,
        _HEADER.size, _SEGMENT.size, 2, 0, 0, 0,
    )  # fmt: skip
    load = _SEGMENT.pack(_LOAD, _READ_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    stack = _SEGMENT.pack(_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + text


def code(listing: str) -> bytes:
    """The first word of each line that is not a label."""
    return b"".join(bytes.fromhex(line.split()[0]) for line in listing.splitlines() if line.startswith(" "))


LISTINGS: Mapping[Abi, str] = {
    # Code, and the instruction that an assembler makes it of.
    "x86_64": """\
_start:
  488b7c2410      mov rdi, [rsp + 16]         # argv[1]: the program's pid, in decimal
  31db            xor ebx, ebx
  41bc01000000    mov r12d, 1                 # WNOHANG
digit:
  0fb607          movzx eax, byte ptr [rdi]
  85c0            test eax, eax
  740c            jz ready
  6bdb0a          imul ebx, ebx, 10
  8d5c03d0        lea ebx, [rbx + rax - 48]
  48ffc7          inc rdi
  ebed            jmp digit
ready:
  bf0f000000      mov edi, 15                 # prctl(PR_SET_NAME, argv[0])
  488b742408      mov rsi, [rsp + 8]
  b89d000000      mov eax, 157
  0f05            syscall
  6aff            push -1                     # all signals
  4889e5          mov rbp, rsp
  6a00            push 0                      # room for a status
  bf02000000      mov edi, 2                  # rt_sigprocmask(SIG_SETMASK, all)
  4889ee          mov rsi, rbp
  31d2            xor edx, edx
  41ba08000000    mov r10d, 8
  b80e000000      mov eax, 14
  0f05            syscall
reap:
  bfffffffff      mov edi, -1                 # wait4(-1, &status, …)
  4889e6          mov rsi, rsp
  4489e2          mov edx, r12d
  4531d2          xor r10d, r10d
  b83d000000      mov eax, 61
  0f05            syscall
  39d8            cmp eax, ebx                # the program
  7441            je over
  85c0            test eax, eax
  7fe3            jg reap                     # an orphan: are there more?
  7c34            jl fail
next:
  4889ef          mov rdi, rbp
  31f6            xor esi, esi
  31d2            xor edx, edx
  41ba08000000    mov r10d, 8
  b880000000      mov eax, 128                # rt_sigtimedwait(all)
  0f05            syscall
  83f811          cmp eax, 17                 # SIGCHLD
  74c8            je reap
  83f8fc          cmp eax, -4                 # interrupted
  74e2            je next
  85c0            test eax, eax
  7e0d            jle deaf                    # a filter forbids it
  89df            mov edi, ebx                # kill(program, signal)
  89c6            mov esi, eax
  b83e000000      mov eax, 62
  0f05            syscall
  ebd1            jmp next
deaf:
  4531e4          xor r12d, r12d              # from now on only ends are waited for
  ebad            jmp reap
fail:
  bf7d000000      mov edi, 125
  eb15            jmp leave
over:
  8b3c24          mov edi, [rsp]              # exit_group(as a shell has it)
  89f8            mov eax, edi
  83e07f          and eax, 127                # killed by a signal?
  7408            jz exited
  8db880000000    lea edi, [rax + 128]
  eb03            jmp leave
exited:
  c1ef08          shr edi, 8
leave:
  b8e7000000      mov eax, 231
  0f05            syscall
""",
    "aarch64": """\
_start:
  e00b40f9        ldr x0, [sp, #16]           # argv[1]: the program's pid, in decimal
  13008052        mov w19, #0
  42018052        mov w2, #10
  35008052        mov w21, #1                 # WNOHANG
digit:
  01144038        ldrb w1, [x0], #1
  81000034        cbz w1, ready
  21c00051        sub w1, w1, #48
  7306021b        madd w19, w19, w2, w1
  fcffff17        b digit
ready:
  e00180d2        mov x0, #15                 # prctl(PR_SET_NAME, argv[0])
  e10740f9        ldr x1, [sp, #8]
  e81480d2        mov x8, #167
  010000d4        svc #0
  01008092        mov x1, #-1                 # all signals
  e17fbfa9        stp x1, xzr, [sp, #-16]!    # and room for a status
  400080d2        mov x0, #2                  # rt_sigprocmask(SIG_SETMASK, all)
  e1030091        mov x1, sp
  020080d2        mov x2, #0
  030180d2        mov x3, #8
  e81080d2        mov x8, #135
  010000d4        svc #0
reap:
  00008092        mov x0, #-1                 # wait4(-1, &status, …)
  e1230091        add x1, sp, #8
  e203152a        mov w2, w21
  030080d2        mov x3, #0
  882080d2        mov x8, #260
  010000d4        svc #0
  1f00136b        cmp w0, w19                 # the program
  20030054        b.eq over
  1f000071        cmp w0, #0
  ecfeff54        b.gt reap                   # an orphan: are there more?
  8b020054        b.lt fail
next:
  e0030091        mov x0, sp                  # rt_sigtimedwait(all)
  010080d2        mov x1, #0
  020080d2        mov x2, #0
  030180d2        mov x3, #8
  281180d2        mov x8, #137
  010000d4        svc #0
  1f440071        cmp w0, #17                 # SIGCHLD
  c0fdff54        b.eq reap
  1f100031        cmn w0, #4                  # interrupted
  e0feff54        b.eq next
  1f000071        cmp w0, #0
  cd000054        b.le deaf                   # a filter forbids it
  e103002a        mov w1, w0                  # kill(program, signal)
  e003132a        mov w0, w19
  281080d2        mov x8, #129
  010000d4        svc #0
  f0ffff17        b next
deaf:
  15008052        mov w21, #0                 # from now on only ends are waited for
  e3ffff17        b reap
fail:
  a00f8052        mov w0, #125
  07000014        b leave
over:
  e00b40b9        ldr w0, [sp, #8]            # exit_group(as a shell has it)
  01180012        and w1, w0, #127            # killed by a signal?
  61000034        cbz w1, exited
  20000211        add w0, w1, #128
  02000014        b leave
exited:
  007c0853        lsr w0, w0, #8
leave:
  c80b80d2        mov x8, #94
  010000d4        svc #0
""",
}
