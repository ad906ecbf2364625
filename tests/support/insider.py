"""What a container tries against its host; runs inside, by `python3 -IS /insider.py PROBE…`, prints JSON.

A probe that succeeds does no harm: what must not be writable is opened for writing and closed, what must not
be called is called with arguments that do nothing. Its outcome is a value, or the name of an errno.
Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import random
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

Probe = Callable[..., Any]
PROBES: dict[str, Probe] = {}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def call(number: int, *arguments: int | None) -> int:
    registers = [ctypes.c_void_p(None) if value is None else ctypes.c_long(value) for value in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *registers))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# Files


def opens(path: str, flags: int) -> str:
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
    return "opened"


@probe
def write(path: str) -> str:
    return opens(path, os.O_WRONLY)


@probe
def read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(200).decode("latin-1")


@probe
def directory(path: str) -> list[str]:
    return sorted(os.listdir(path))


@probe
def node(device: str) -> str:
    """`b,7,0`: make it and open it."""
    kind, major, minor = device.split(",")
    path = f"/tmp/node-{device}"
    mode = {"b": stat.S_IFBLK, "c": stat.S_IFCHR}[kind]
    os.mknod(path, mode | 0o600, os.makedev(int(major), int(minor)))
    try:
        return opens(path, os.O_RDWR)
    finally:
        os.unlink(path)


@probe
def climb() -> bool:
    """Out of a chroot of one's own, which is a chroot's only way: whether one stands in one's own root."""
    os.makedirs("/cage", exist_ok=True)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.chroot("/cage")
    os.chdir("../" * 30)
    os._exit(0 if os.path.exists("insider.py") else 1)


@probe
def swap(pair: str) -> None:
    """`/v/a,/v/b`: exchange the two for ever, and count in /v/exchanges; says when it begins."""
    one, other = (ctypes.create_string_buffer(path.encode()) for path in pair.split(","))
    number = {"x86_64": 316, "aarch64": 276}[platform.machine()]
    fd = os.open(f"{os.path.dirname(pair.split(',')[0])}/exchanges", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 8)
    counter = ctypes.c_uint64.from_buffer(mmap.mmap(fd, 8))
    print("swapping", flush=True)
    while True:
        call(number, -100, ctypes.addressof(one), -100, ctypes.addressof(other), 2)  # RENAME_EXCHANGE
        counter.value += 1


@probe
def mounts() -> list[str]:
    """Where something is mounted, in the order of the mounts."""
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file]


# What it was given


@probe
def capabilities() -> dict[str, str]:
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {
        name: lines[name] for name in lines if name.startswith("Cap") or name in ("NoNewPrivs", "Seccomp")
    }


@probe
def environment() -> dict[str, str]:
    with open("/proc/self/environ", "rb") as file:
        entries = file.read().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


@probe
def descriptors() -> list[str]:
    listing = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    return sorted(name for name in os.listdir(listing) if int(name) != listing and _is_open(int(name)))


def _is_open(fd: int) -> bool:
    """os.listdir opens one itself."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@probe
def identity() -> list[int]:
    return [*os.getresuid(), *os.getresgid()]


# Others


@probe
def processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


@probe
def signal(pid: str) -> str:
    os.kill(int(pid), 0)
    return "can be signalled"


@probe
def trace(pid: str) -> str:
    """Seize and let go."""
    number = {"x86_64": 101, "aarch64": 117}[platform.machine()]
    call(number, 0x4206, int(pid), 0, 0)  # PTRACE_SEIZE
    call(number, 17, int(pid), 0, 0)  # PTRACE_DETACH, which a running one refuses: our end lets go
    return "traced"


@probe
def watch() -> list[str]:
    """What all processes that come and go run from, as far as it can be seen; until /tmp/stop is there."""
    seen = set()
    print("watching", flush=True)
    while not os.path.exists("/tmp/stop"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                seen.add(str(outcome(lambda name=name: os.readlink(f"/proc/{name}/exe"))))
    return sorted(seen)


@probe
def links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


@probe
def netlink() -> str:
    """Ask for a bridge, by RTM_NEWLINK."""
    info = attribute(18, attribute(1, b"bridge"))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(3, b"probe0\0") + info
    header = struct.pack("=IHHII", 16 + len(body), 16, 0x405 | 0x200, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(header + body)
        (code,) = struct.unpack_from("=i", route.recv(4096), 16)
    if code:
        raise OSError(-code, os.strerror(-code))
    return "made"


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data.ljust(-(-len(data) // 4) * 4, b"\0")


@probe
def abstract(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + name)
    return "connected"


@probe
def confuse_names(name: str) -> str:
    """Send the name server what is no question, by datagrams and by a stream; then ask it for a name."""
    chance = random.Random(name)
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0\4name\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.connect(("127.0.0.11", 53))
        for _ in range(2000):
            packet = bytearray(query + chance.randbytes(chance.randrange(40)))
            for _ in range(chance.randrange(6)):
                packet[chance.randrange(len(packet))] = chance.randrange(256)
            server.send(packet[: chance.randrange(len(packet) + 1)])
        for packet in (
            query[:12],
            query[:2],
            query + bytes(60000),
            b"\xff" * 600,
            (b"\x3f" + b"x" * 63) * 900,
        ):
            server.send(packet)
    for data in (b"\0\0", b"\xff\xff" + chance.randbytes(2000), b"\0\5hello", b"\0\x20" + query):
        with socket.create_connection(("127.0.0.11", 53)) as stream:
            stream.sendall(data)
    return socket.gethostbyname(name)


@probe
def crowd_names(most: str) -> None:
    """Open streams to the name server and keep them; says so when it has them."""
    opened = []
    for _ in range(int(most)):
        opened.append(socket.create_connection(("127.0.0.11", 53)))
    print("crowded", flush=True)
    while True:
        time.sleep(60)


@probe
def ask_by_stream(name: str) -> int:
    """Length of the answer."""
    question = bytes([len(name)]) + name.encode() + b"\0\0\1\0\1"
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0" + question
    with socket.create_connection(("127.0.0.11", 53), timeout=30) as stream:
        stream.sendall(struct.pack("!H", len(query)) + query)
        return len(stream.recv(4096))


@probe
def abstract_names() -> list[str]:
    with open("/proc/net/unix") as file:
        return [line.split("@", 1)[1].strip() for line in file if "@" in line]


@probe
def shared_key(description: str) -> int:
    """The serial number of a key of ours that one finds from here."""
    number = {"x86_64": 250, "aarch64": 219}[platform.machine()]
    name = description.encode()
    kind = ctypes.create_string_buffer(b"user")
    text = ctypes.create_string_buffer(name)
    return call(number, 10, -3, ctypes.addressof(kind), ctypes.addressof(text), 0)  # KEYCTL_SEARCH, session


@probe
def session_keyring() -> int:
    number = {"x86_64": 250, "aarch64": 219}[platform.machine()]
    return call(number, 0, -3, 0)  # KEYCTL_GET_KEYRING_ID


# Calls that a filter refuses: arguments that do nothing, and fail in another way without a filter.

_CALLS: dict[str, tuple[int, int, tuple[int | None, ...]]] = {
    # name: number on x86_64 and aarch64, arguments
    "getpid": (39, 172, ()),
    "unshare": (272, 97, (0,)),
    "setns": (308, 268, (-1, 0)),
    "clone3": (435, 435, (None, 0)),
    "add_key": (248, 217, (None, None, None, 0, 0)),
    "request_key": (249, 218, (None, None, None, 0)),
    "keyctl": (250, 219, (-1, 0, 0, 0, 0)),
    "io_uring_setup": (425, 425, (0, None)),
    "io_uring_enter": (426, 426, (-1, 0, 0, 0, None, 0)),
    "userfaultfd": (323, 282, (-1,)),
    "move_pages": (279, 239, (0, 0, None, None, None, 0)),
    "mount": (165, 40, (None, None, None, -1, None)),
    "umount2": (166, 39, (None, -1)),
    "move_mount": (429, 429, (-1, None, -1, None, 0)),
    "open_tree": (428, 428, (-1, None, -1)),
    "settimeofday": (164, 170, (None, None)),
    "personality": (135, 92, (0x0400000,)),
    "perf_event_open": (298, 241, (None, 0, -1, -1, -1)),
    "process_madvise": (440, 440, (-1, None, 0, 0, -1)),
    "kcmp": (312, 272, (0, 0, -1, 0, 0)),
    "quotactl_fd": (443, 443, (-1, 0, 0, None)),
    "socket_alg": (41, 198, (38, 5, 0)),
    "socket_vsock": (41, 198, (40, 1, 0)),
    "future": (2000, 2000, ()),
}


@probe
def calls(name: str) -> Any:
    x86_64, aarch64, arguments = _CALLS[name]
    number = x86_64 if platform.machine() == "x86_64" else aarch64
    result = call(number, *arguments)
    return "called" if name not in ("getpid",) else result


@probe
def calls_i386(name: str) -> Any:
    """By the entry for 32-bit programs, which a 64-bit one may use, too."""
    number = {"getpid": 20, "unshare": 310, "keyctl": 288, "clone3": 435}[name]
    code = b"\x53\x31\xdb\x31\xc9\xb8" + struct.pack("=I", number) + b"\xcd\x80\x5b\xc3"  # arguments 0, 0
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(start)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return "called" if name != "getpid" else result


# Exhaustion: up to what the container may have, and never more than `most`.


@probe
def forks(most: str) -> int:
    """Children that sleep until the last one has been made."""
    children: list[int] = []
    try:
        while len(children) < int(most):
            pid = os.fork()
            if pid == 0:
                while True:
                    time.sleep(60)
            children.append(pid)
    except BlockingIOError:
        pass
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    return len(children)


@probe
def fill(where: str) -> int:
    """`/dev/shm,64`: mebibytes written until it is full, at most so many."""
    path, most = where.split(",")
    written = 0
    name = f"{path}/fill"
    try:
        with open(name, "wb", buffering=0) as file:
            while written < int(most) << 20:
                done = file.write(bytes(1 << 20))
                written += done
                if done < 1 << 20:
                    break
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.unlink(name)
    return written >> 20


@probe
def open_files(most: str) -> int:
    opened: list[int] = []
    try:
        while len(opened) < int(most):
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    finally:
        for fd in opened:
            os.close(fd)
    return len(opened)


def main() -> None:
    """`PROBE` or `PROBE:ARGUMENT`."""
    results = {}
    for word in sys.argv[1:]:
        name, given, argument = word.partition(":")
        arguments = (argument,) if given else ()
        results[word] = outcome(lambda name=name, arguments=arguments: PROBES[name](*arguments))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
