"""The table of builds: a Dockerfile for each feature, used for it alone, and what it needs.

Rows with `judge="dockerd"` were built by dockerd 20.10's own builder; what it made is kept in
tests/data/builds/ (`python -m tests.support.recordbuilds` writes it). What only BuildKit has is in rows with
`judge="reference"`: their results are written by hand from the Dockerfile reference.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.imagecontents import FIXED_TIME

BASE = "corpus/base:1"
"""Static busybox, with ENV PATH and CMD."""
PORT = 18017
"""On loopback, where the files of ADD's addresses are."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """An entry of a context."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)


def link(target: str) -> Node:
    return Node(kind=tarfile.SYMTYPE, target=target, mode=0o777)


def hard(target: str, **fields: Any) -> Node:
    return Node(kind=tarfile.LNKTYPE, target=target, **fields)


def directory(mode: int = 0o755) -> Node:
    return Node(kind=tarfile.DIRTYPE, mode=mode)


Entry = str | bytes | Node
Context = Mapping[str, Entry]


def tar(context: Context) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in context.items():
            if isinstance(entry, str):
                entry = entry.encode()
            node = Node(data=entry) if isinstance(entry, bytes) else entry
            info = tarfile.TarInfo(path)
            info.type, info.linkname, info.size = node.kind, node.target, len(node.data)
            info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, FIXED_TIME
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in node.xattrs.items()}
            archive.addfile(info, io.BytesIO(node.data))
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class Row:
    feature: str
    """Of the Dockerfile reference, or of `docker build`."""
    dockerfile: str
    context: Context | Callable[[], Context] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    """Of `docker build`."""
    before: Mapping[str, str] = field(default_factory=dict)
    """Images that are built first: name → Dockerfile."""
    base: str = BASE
    """What the result is compared with: what its last stage begins with; empty is nothing."""
    directory: bool = False
    """The context is given as a directory, so that the client applies .dockerignore."""
    judge: Literal["dockerd", "reference"] = "dockerd"
    expected: Mapping[str, Any] = field(default_factory=dict)
    """With `reference`: tree and config as in `imagecontents.Contents`; config may be a part of it."""
    file: str = "Dockerfile"
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Given by the agent's own POST /hawse/v1/build, since docker's own has no place for them."""
    volatile: tuple[str, ...] = ()
    """Paths whose content is the machine's."""
    needs: tuple[str, ...] = ()
    """Images of `buildapps` besides the base."""
    heavy: bool = False
    """Not in every run of the tests."""
    runs: tuple[str, ...] = ()
    """What a container of the result is given, and what it prints."""
    prints: str = ""
    served: Mapping[str, bytes] = field(default_factory=dict)
    """Files at http://127.0.0.1:PORT/."""


ROWS: dict[str, Row] = {}


def row(name: str, feature: str, dockerfile: str, **fields: Any) -> None:
    assert name not in ROWS
    ROWS[name] = Row(feature=feature, dockerfile=dockerfile.lstrip("\n"), **fields)


# FROM and stages

row(
    "scratch",
    "FROM scratch",
    """
FROM scratch
COPY hello /hello
COPY etc /etc/
CMD ["/hello"]
""",
    context={"hello": Node(data=b"#!\n", mode=0o755), "etc/passwd": "root:x:0:0::/:/hello\n"},
    base="",
)

row(
    "stages",
    "stages: names, numbers, COPY --from of a stage and of an image; FROM a stage",
    """
FROM corpus/base:1 AS Build
RUN mkdir /out && echo one > /out/one && chown bob:bob /out/one && ln -s one /out/link
ENV FROM_BUILD=yes
FROM corpus/base:1
RUN echo two > /two
FROM build AS more
RUN echo three > /out/three
FROM corpus/base:1
COPY --from=build /out /a
COPY --from=1 /two /b/
COPY --from=more /out/three /out/link /c/
COPY --from=corpus/base:1 /etc/group /d
""",
)

row(
    "stage-of-stage",
    "FROM a stage: its files and its configuration go on",
    """
FROM corpus/base:1 AS one
ENV A=1
ARG B=2
WORKDIR /tmp
USER bob
RUN echo $A$B > file
FROM one
ARG B=3
RUN echo "$A$B" > file2; id -u > id
LABEL from=one
""",
)

row(
    "target",
    "--target, and stages that are not needed are not built",
    """
FROM corpus/base:1 AS first
RUN echo first > /first
FROM corpus/base:1 AS broken
RUN exit 7
""",
    options=("--target", "first"),
)

row(
    "file",
    "docker build -f, several -t",
    """
FROM corpus/base:1
COPY . /c
""",
    file="docker/web.Dockerfile",
    context={"f": "f\n"},
    options=("-f", "docker/web.Dockerfile", "-t", "corpus/second:2"),
)

row(
    "global-arguments",
    "ARG before FROM: only FROM lines and stages that declare it see it",
    """
ARG TAG=nosuch
ARG IMAGE=corpus/base
FROM ${IMAGE}:$TAG
RUN echo "[$TAG]" > /undeclared
ARG TAG
RUN echo "[$TAG]" > /declared
""",
    options=("--build-arg", "TAG=1"),
)

row(
    "platform",
    "FROM --platform",
    """
FROM --platform=linux/amd64 corpus/base:1
RUN uname -m > /machine
""",
)

# RUN

row(
    "run-shell",
    "RUN, shell form: files, modes, owners, links, removal, replacement, an opaque directory",
    """
FROM corpus/base:1
RUN mkdir -p /d/e && echo a > /d/a && echo b > /d/e/b && chmod 640 /d/a && chown 5:6 /d/e
RUN ln -s a /d/s && ln /d/a /d/h && mkfifo /d/p && chmod 4755 /d/e/b && mkdir -m 1777 /d/t
RUN rm /d/e/b && rm -r /home/bob && mkdir /home/bob && echo new > /home/bob/new
RUN rm -r /d/t && echo file > /d/t; rm /d/s && mkdir /d/s
RUN echo "two words"   |   tr a-z A-Z > "/d/with space"
RUN rm /etc/group && umask 077 && echo x > /etc/group
""",
)

row(
    "run-exec",
    "RUN, exec form: no shell, no variables",
    r"""
FROM corpus/base:1
ENV V=value
RUN ["sh", "-c", "echo \"$V\" > /by-sh"]
RUN ["touch", "/$V", "/a b"]
""",
)

row(
    "run-environment",
    "RUN: environment, working directory and user of a step",
    """
FROM corpus/base:1
ENV A="1 2" PATH=/extra:$PATH
ARG B=3
WORKDIR /work
USER bob:audio
RUN env | grep -v HOSTNAME | sort > /tmp/env; pwd > /tmp/pwd; id > /tmp/id; umask > /tmp/umask
""",
)

row(
    "run-continued",
    "continuation lines, comments and blanks within them",
    """
# a comment
FROM corpus/base:1

RUN echo one \\
  # a comment within
    two \\

    three > /words && \\
    echo 'a\\
b' > /joined # no comment
  RUN echo indented > /indented
""",
)

row(
    "run-no-network",
    "docker build --network none",
    """
FROM corpus/base:1
RUN ls /sys/class/net > /links
""",
    options=("--network", "none"),
)

row(
    "shell",
    "SHELL",
    """
FROM corpus/base:1
SHELL ["/bin/sh", "-euc"]
RUN false || echo "$-" | tr -dc eu > /options
ENTRYPOINT exec top
CMD echo hi
HEALTHCHECK CMD true
""",
)

# Configuration

row(
    "cmd",
    "CMD: the last counts; shell form",
    """
FROM corpus/base:1
CMD ["first"]
CMD echo  "$HOME"
""",
)

row(
    "cmd-exec",
    "CMD, exec form",
    """
FROM corpus/base:1
CMD ["echo", "a b", "$HOME", "\\u00e9"]
""",
)

row(
    "cmd-no-json",
    "CMD with single quotes is no JSON array",
    """
FROM corpus/base:1
CMD ['echo', 'a']
""",
)

row(
    "entrypoint",
    "ENTRYPOINT takes the base image's CMD away, and not its own file's",
    """
FROM corpus/base:1
ENTRYPOINT ["top", "-b"]
""",
)

row(
    "entrypoint-and-cmd",
    "ENTRYPOINT after CMD in the same file",
    """
FROM corpus/base:1
CMD ["-b"]
ENTRYPOINT exec top
""",
)

row(
    "entrypoint-reset",
    "ENTRYPOINT []",
    """
FROM corpus/entry:1
ENTRYPOINT []
CMD ["sh"]
""",
    before={"corpus/entry:1": 'FROM corpus/base:1\nENTRYPOINT ["top"]\nCMD ["-b"]\n'},
    base="corpus/entry:1",
)

row(
    "label",
    "LABEL: forms, quotes, several, the last counts",
    r"""
FROM corpus/base:1
LABEL "com.example.vendor"="ACME Incorporated"
LABEL com.example.label-with-value="foo" version="1.0" \
      description="This text illustrates \
that label-values can span multiple lines."
LABEL old form with blanks
LABEL version='2.0' empty="" quote="a\"b" dollar=\$x
""",
    options=("--label", "given=on the command line", "--label", "version=3.0"),
)

row(
    "maintainer",
    "MAINTAINER",
    """
FROM corpus/base:1
MAINTAINER Somebody <some@example.com>
RUN true
""",
)

row(
    "expose",
    "EXPOSE: protocols, ranges, variables",
    """
FROM corpus/base:1
ARG PORT=8080
EXPOSE 80 53/udp
EXPOSE 7000-7002/tcp $PORT ${PORT}/udp
EXPOSE 80/tcp 9/sctp
""",
)

row(
    "env",
    "ENV: both forms, quotes, escapes, blanks, what was before the line",
    r"""
FROM corpus/base:1
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
ENV old  form with  blanks and "quotes" $abc
ENV A=a\ b B="c d" C='e $abc' D="f $abc" E= F=g\"h G="i\"j" H=\$abc I=${abc}k
ENV A=changed
RUN echo "$A|$B|$C|$D|$E|$F|$G|$H|$I|$old" > /values
""",
)

row(
    "variables",
    "variables: braces, :- and :+, nested, escaped; where they are replaced",
    r"""
FROM corpus/base:1
ENV v=val w=/w e=
WORKDIR ${w}/${nothing:-def}/${v:+set}
ADD $v-file "${w}/"
COPY ${nothing:-$v}-file \$v /lit/
EXPOSE ${nothing:-81}
USER ${v:+bob}
VOLUME $w/vol
STOPSIGNAL ${nothing:-SIGINT}
LABEL "$v"=${e:-empty}${e:+set} x="${v}'s" y='$v'
CMD echo $v
""",
    context={"val-file": "1\n", "$v": "2\n"},
)

row(
    "volume",
    "VOLUME: forms",
    """
FROM corpus/base:1
VOLUME /a /b
VOLUME ["/c d", "/a"]
""",
)

row(
    "volume-later",
    "VOLUME: what RUN changes there afterwards is not kept, what COPY does is",
    """
FROM corpus/base:1
RUN mkdir /v && echo before > /v/before
VOLUME /v
RUN echo run > /v/run && rm /v/before && echo run > /outside
COPY f /v/
RUN ls /v > /seen
""",
    context={"f": "f\n"},
)

row(
    "user",
    "USER: whose RUN's files are; WORKDIR's and COPY's are root's",
    """
FROM corpus/base:1
USER bob
WORKDIR /home/bob/work
RUN touch /tmp/mine
COPY f ./
USER 1234:10
RUN touch /tmp/numbers
USER root
RUN touch /tmp/roots
USER bob:audio
""",
    context={"f": "f\n"},
)

row(
    "workdir",
    "WORKDIR: relative to the one before, made as needed",
    """
FROM corpus/base:1
WORKDIR /a
WORKDIR b
WORKDIR c/../d/
RUN pwd > where
COPY f g/
WORKDIR /tmp
""",
    context={"f": "f\n"},
)

row(
    "stopsignal",
    "STOPSIGNAL",
    """
FROM corpus/base:1
STOPSIGNAL 9
STOPSIGNAL SIGQUIT
""",
)

row(
    "healthcheck",
    "HEALTHCHECK: options, shell form",
    """
FROM corpus/base:1
HEALTHCHECK --interval=5m --timeout=3s --start-period=1m30s --retries=5 CMD wget -q http://localhost || exit 1
""",
)

row(
    "healthcheck-none",
    "HEALTHCHECK NONE, and exec form in the base image",
    """
FROM corpus/health:1
HEALTHCHECK NONE
""",
    before={"corpus/health:1": 'FROM corpus/base:1\nHEALTHCHECK CMD ["true"]\n'},
    base="corpus/health:1",
)

row(
    "arg",
    "ARG: defaults, --build-arg, scopes, ENV over ARG, what history says",
    """
FROM corpus/base:1 AS other
ARG only_here=1
FROM corpus/base:1
RUN echo "[$late]" > /before
ARG late=default
ARG given=default other
ARG from_arg=$given/x
ENV late=${late:-no} over=env
ARG over=arg
RUN echo "[$late] [$given] [$other] [$from_arg] [$over] [$only_here]" > /after
""",
    options=("--build-arg", "given=yes", "--build-arg", "over=given"),
)

row(
    "predefined-arguments",
    "predefined arguments: RUN has them, history has not",
    """
FROM corpus/base:1
RUN echo "$HTTP_PROXY $no_proxy" > /proxies
""",
    options=("--build-arg", "HTTP_PROXY=http://user:pass@p:1", "--build-arg", "no_proxy=x"),
)

row(
    "onbuild",
    "ONBUILD: kept in the base, executed by what is built from it, once",
    """
FROM corpus/onbuild:1
RUN cat /app/f > /copied
""",
    before={
        "corpus/onbuild:1": "FROM corpus/base:1\nONBUILD COPY f /app/\nONBUILD RUN echo $V > /run\n"
        "ONBUILD ENV V=1\nENV V=0\n"
    },
    context={"f": "f\n"},
    base="corpus/onbuild:1",
)

row(
    "onbuild-kept",
    "ONBUILD: what the image says",
    """
FROM corpus/base:1
ONBUILD ADD . /app/src
ONBUILD RUN  make   all
""",
)

row(
    "escape-directive",
    "directive escape",
    r"""
# escape=`
FROM corpus/base:1
ENV A=c:\dir B=x` y
RUN echo "$A" `
    > /a
COPY f c:\
""",
    context={"f": "f\n"},
)

# COPY and ADD

TREE: Context = {
    "d/a.txt": "a\n",
    "d/b.txt": Node(data=b"b\n", mode=0o600, uid=5, gid=6),
    "d/sub/c.txt": Node(data=b"c\n", mode=0o4755),
    "d/sub/empty": directory(0o700),
    "d/link": link("a.txt"),
    "d/abs": link("/etc/passwd"),
    "d/dangling": link("nowhere"),
    "d/.hidden": "h\n",
    "x.txt": "x\n",
    "y.txt": Node(data=b"y\n", mode=0o640),
    "with space.txt": "s\n",
    "arr[0].txt": "arr\n",
    "toplink": link("x.txt"),
    "dirlink": link("d"),
    "empty.txt": "",
}

row(
    "copy-files",
    "COPY: a file to a name, into a directory, several, made parents",
    """
FROM corpus/base:1
COPY x.txt /new
COPY x.txt /dir/
COPY x.txt y.txt empty.txt /several/in/depth/
COPY x.txt /etc
COPY ./x.txt ././d/../y.txt /in/
""",
    context=TREE,
)

row(
    "copy-directories",
    "COPY: a directory's contents; links, modes and hidden files in it",
    """
FROM corpus/base:1
COPY d /new
COPY d/ /slash/
COPY d /tmp
COPY d/sub d/link /both/
""",
    context=TREE,
)

row(
    "copy-all",
    "COPY . takes everything, the Dockerfile too",
    """
FROM corpus/base:1
WORKDIR /w
COPY . .
""",
    context=TREE,
)

row(
    "copy-wildcards",
    "COPY: wildcards are Go's",
    r"""
FROM corpus/base:1
COPY *.txt /star/
COPY [xy].tx? /class/
COPY d/*.txt /sub/
COPY d* /dirs/
COPY arr[[]0].txt /escaped/
COPY */sub/* /deep/
""",
    context=TREE,
)

row(
    "copy-json",
    "COPY: JSON form for names with blanks",
    """
FROM corpus/base:1
COPY ["with space.txt", "/a b/c d"]
COPY [ "x.txt" , "y.txt", "/e f/" ]
""",
    context=TREE,
)

row(
    "copy-links",
    "COPY: links as sources are followed, links in the destination too",
    """
FROM corpus/base:1
RUN mkdir /real && ln -s real /to-dir && echo old > /old && ln -s old /to-file && ln -s ../../../real /out
COPY toplink /plain
COPY dirlink /from-link
COPY x.txt /to-dir/
COPY y.txt /to-file
COPY d/a.txt /out/
""",
    context=TREE,
)

row(
    "copy-over",
    "COPY: over what is there; a directory keeps nothing of its mode but what it takes",
    """
FROM corpus/base:1
RUN mkdir -m 700 /new /new/sub && chown 7:8 /new /new/sub && echo old > /new/a.txt && echo kept > /new/kept \\
    && chown 7:8 /new/a.txt && chmod 755 /new/a.txt && ln -s kept /new/b.txt
COPY d /new
""",
    context=TREE,
)

row(
    "copy-chown",
    "COPY --chown: names and numbers, groups, made directories",
    """
FROM corpus/base:1
COPY --chown=bob x.txt /a/
COPY --chown=bob:audio d /b/c
COPY --chown=11:12 x.txt /d
COPY --chown=bob:7 y.txt /f
RUN echo 'new:x:77:78::/:' >> /etc/passwd && echo 'news:x:79:' >> /etc/group
COPY --chown=new:news x.txt /g
""",
    context=TREE,
)

row(
    "copy-from-owners",
    "COPY --from: owners, times, set-id bits, extended attributes; with --chown",
    """
FROM corpus/base:1 AS build
RUN mkdir /d && touch -d '2023-11-14 22:13:20' /d/x && chown -R 5:6 /d && chmod 4755 /d/x && ln /d/x /d/y
FROM corpus/base:1
COPY --from=build /d /kept/d
COPY --from=build /d/x /file/x
COPY --from=build --chown=7:8 /d /given/d
COPY --from=build --chown=bob /d/x /given/x
""",
)

row(
    "copy-hard-links",
    "COPY: hard links of the context",
    """
FROM corpus/base:1
COPY h /h
""",
    context={"h/one": "1\n", "h/two": hard("h/one")},
)

row(
    "copy-relative",
    "COPY: relative destinations, . and .. in them",
    """
FROM corpus/base:1
WORKDIR /w/x
COPY x.txt .
COPY x.txt y
COPY x.txt ../z/
COPY x.txt ../../../../top
""",
    context=TREE,
)

row(
    "dockerignore",
    ".dockerignore: what is left out, the Dockerfile too",
    """
FROM corpus/base:1
COPY . /c/
""",
    context={
        ".dockerignore": "# comment\n*.md\n!README*.md\nREADME-secret.md\n**/*.o\nbuild\n!build/keep\n"
        "Dockerfile\n.dockerignore\n",
        "a.md": "",
        "README.md": "",
        "README-secret.md": "",
        "x.o": "",
        "src/y.o": "",
        "src/y.c": "",
        "build/gone": "",
        "build/keep": "",
    },
    directory=True,
)


def _archives() -> Context:
    inner = tar(
        {
            "top": "top\n",
            "dir/file": Node(data=b"in\n", mode=0o600, uid=3, gid=4),
            "dir/link": link("file"),
            "dir/hard": hard("dir/file", mode=0o600, uid=3, gid=4),
            "capable": Node(
                data=b"#!\n",
                mode=0o755,
                xattrs={
                    "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                    "\x00\x00\x00\x00"
                },
            ),
        }
    )
    return {
        "plain.tar": inner,
        "gz.tar.gz": gzip.compress(inner, mtime=0),
        "bz.tar.bz2": bz2.compress(inner),
        "xz.tar.xz": lzma.compress(inner),
        "named.txt": inner,
        "text.gz": gzip.compress(b"only text\n", mtime=0),
        "text.tar": "no archive\n",
        "file": "f\n",
    }


row(
    "add-archives",
    "ADD: local archives are unpacked, whatever they are called; other files are not",
    """
FROM corpus/base:1
ADD plain.tar /plain/
ADD gz.tar.gz /gz
ADD bz.tar.bz2 /bz/
ADD xz.tar.xz named.txt file /several/
ADD text.gz text.tar /as/they/are/
ADD --chown=bob gz.tar.gz /owned/
COPY gz.tar.gz /copied/
""",
    context=_archives,
)

row(
    "add-files",
    "ADD: files and directories as COPY",
    """
FROM corpus/base:1
ADD x.txt y.txt /f/
ADD d /d
ADD --chown=bob:bob d/a.txt /owned
""",
    context=TREE,
)

SERVED = {"file.txt": b"from the net\n", "a.tar": tar({"in": "in\n"})}

row(
    "add-address",
    "ADD: an address; its archive is not unpacked; mode 600",
    f"""
FROM corpus/base:1
ADD http://127.0.0.1:{PORT}/file.txt /named
ADD http://127.0.0.1:{PORT}/file.txt http://127.0.0.1:{PORT}/a.tar /dir/
ADD --chown=bob http://127.0.0.1:{PORT}/file.txt /owned
""",
    served=SERVED,
)

# What only BuildKit has: by hand, from the reference


def reference(name: str, feature: str, dockerfile: str, tree: Mapping[str, str], **fields: Any) -> None:
    config = fields.pop("config", {})
    whiteouts = fields.pop("whiteouts", [])
    row(
        name,
        feature,
        dockerfile,
        judge="reference",
        expected={"tree": dict(tree), "config": config, "whiteouts": whiteouts},
        **fields,
    )


reference(
    "run-heredoc",
    "RUN: heredocs as script, as program, as a command's input; tabs; several",
    """
FROM corpus/base:1
ENV v=value
RUN <<EOF
echo $v > /script
cd /tmp
pwd >> /script
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print "awk, $v" > "/program" }
EOF
RUN cat > /input <<-EOF && cat > /quoted <<'QUOTED'
	tabs gone $v
	EOF
$v
QUOTED
SHELL ["/bin/sh", "-euc"]
RUN <<EOF
false || echo "$-" | tr -dc eu > /shell
EOF
""",
    {
        "/script": 'file 0644 0:0 "value\\n/tmp\\n"',
        "/program": 'file 0644 0:0 "awk, $v\\n"',
        "/input": 'file 0644 0:0 "tabs gone value\\n"',
        "/quoted": 'file 0644 0:0 "$v\\n"',
        "/shell": 'file 0644 0:0 "ue"',
    },
)

reference(
    "copy-heredoc",
    "COPY: heredocs are files; variables unless quoted; modes and owners",
    r"""
FROM corpus/base:1
ENV v=value
COPY <<one <<"two" f /files/
$v "quoted" \$v
one
$v
two
COPY --chmod=750 --chown=bob <<EOF /opt/tool
#!/bin/sh
EOF
ADD <<-EOF /added
	no tab
	EOF
""",
    {
        "/files": "dir 0755 0:0",
        "/files/one": 'file 0644 0:0 "value \\"quoted\\" $v\\n"',
        "/files/two": 'file 0644 0:0 "$v\\n"',
        "/files/f": 'file 0644 0:0 "f\\n" @',
        "/opt": "dir 0755 1000:1000",
        "/opt/tool": 'file 0750 1000:1000 "#!/bin/sh\\n"',
        "/added": 'file 0644 0:0 "no tab\\n"',
    },
    context={"f": "f\n"},
)

reference(
    "copy-chmod",
    "COPY and ADD --chmod: octal, symbolic, of files and directories",
    """
FROM corpus/base:1
ARG mode=600
COPY --chmod=751 d /octal
COPY --chmod=u=rwX,go=rX d /symbolic
COPY --chmod=$mode d/run /variable
ADD --chmod=4755 --chown=5:6 d/run /setuid
""",
    {
        "/octal": "dir 0751 0:0",
        "/octal/run": 'file 0751 0:0 "r\\n" @',
        "/octal/plain": 'file 0751 0:0 "p\\n" @',
        "/symbolic": "dir 0755 0:0",
        "/symbolic/run": 'file 0755 0:0 "r\\n" @',
        "/symbolic/plain": 'file 0644 0:0 "p\\n" @',
        "/variable": 'file 0600 0:0 "r\\n" @',
        "/setuid": 'file 4755 5:6 "r\\n" @',
    },
    context={
        "d": directory(0o700),
        "d/run": Node(data=b"r\n", mode=0o700),
        "d/plain": Node(data=b"p\n", mode=0o600),
    },
)

reference(
    "copy-link",
    "COPY --link",
    """
FROM corpus/base:1 AS build
RUN echo built > /built
FROM corpus/base:1
COPY --link f /dir/
COPY --link --from=build --chown=7:8 /built /own/built
""",
    {
        "/dir": "dir 0755 0:0",
        "/dir/f": 'file 0644 0:0 "f\\n" @',
        "/own": "dir 0755 7:8",
        "/own/built": 'file 0644 7:8 "built\\n"',
    },
    context={"f": "f\n"},
)

reference(
    "mount-cache",
    "RUN --mount=type=cache: kept from step to step, no part of the image; ids and owners",
    """
FROM corpus/base:1
RUN --mount=type=cache,target=/cache echo one > /cache/f
RUN --mount=type=cache,target=/cache cat /cache/f > /seen
RUN --mount=type=cache,id=corpus-own,target=/cache,uid=5,gid=6,mode=0750 stat -c '%a %u:%g' /cache > /owner
RUN --mount=type=cache,id=/cache,target=/other,ro cat /other/f > /same; touch /other/x || echo ro > /ro
RUN ls -d /cache /other > /left || true
""",
    {
        "/seen": 'file 0644 0:0 "one\\n"',
        "/owner": 'file 0644 0:0 "750 5:6\\n"',
        "/same": 'file 0644 0:0 "one\\n"',
        "/ro": 'file 0644 0:0 "ro\\n"',
        "/left": 'file 0644 0:0 ""',
    },
)

reference(
    "mount-bind",
    "RUN --mount=type=bind: of the context, a stage, an image; writes are dropped",
    """
FROM corpus/base:1 AS build
RUN mkdir /out && echo built > /out/f
FROM corpus/base:1
RUN --mount=target=/src cat /src/d/f > /context; touch /src/x 2> /dev/null || echo ro > /ro
RUN --mount=type=bind,source=d,target=/src,rw echo new > /src/new && ls /src > /written
RUN --mount=type=bind,from=build,source=/out,target=/src cat /src/f > /stage
RUN --mount=from=corpus/base:1,source=/etc/group,target=/group head -n 1 /group > /image
""",
    {
        "/context": 'file 0644 0:0 "f\\n"',
        "/ro": 'file 0644 0:0 "ro\\n"',
        "/written": 'file 0644 0:0 "f\\nnew\\n"',
        "/stage": 'file 0644 0:0 "built\\n"',
        "/image": 'file 0644 0:0 "root:x:0:\\n"',
    },
    context={"d/f": "f\n"},
)

reference(
    "mount-tmpfs",
    "RUN --mount=type=tmpfs: empty, of its size, gone afterwards",
    """
FROM corpus/base:1
RUN mkdir /t && echo below > /t/below
RUN --mount=type=tmpfs,target=/t,size=1m ls /t > /empty; touch /t/x; df -k /t | awk 'NR==2 {print $2}' > /size
RUN ls /t > /after
""",
    {
        "/t": "dir 0755 0:0",
        "/t/below": 'file 0644 0:0 "below\\n"',
        "/empty": 'file 0644 0:0 ""',
        "/size": 'file 0644 0:0 "1024\\n"',
        "/after": 'file 0644 0:0 "below\\n"',
    },
)

reference(
    "mount-secret",
    "RUN --mount=type=secret: as file, as variable, its mode and owner; nothing of it is kept",
    """
FROM corpus/base:1
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length && stat -c %a /run/secrets/token > /mode
RUN --mount=type=secret,id=token,target=/root/t,mode=0440,uid=5,gid=6 stat -c '%a %u:%g' /root/t > /owner
RUN --mount=type=secret,id=token,env=TOKEN echo ${#TOKEN} > /variable
RUN --mount=type=secret,id=nosuch ls /run/secrets/nosuch || echo none > /none
RUN env | grep TOKEN || echo gone > /gone
""",
    {
        "/length": 'file 0644 0:0 "6\\n"',
        "/mode": 'file 0644 0:0 "400\\n"',
        "/owner": 'file 0644 0:0 "440 5:6\\n"',
        "/variable": 'file 0644 0:0 "6\\n"',
        "/none": 'file 0644 0:0 "none\\n"',
        "/gone": 'file 0644 0:0 "gone\\n"',
    },
    secrets={"token": "s3cret"},
)

reference(
    "run-network",
    "RUN --network=none and default",
    """
FROM corpus/base:1
RUN --network=none ls /sys/class/net > /none
RUN --network=default ls /sys/class/net | wc -l > /default
""",
    {"/none": 'file 0644 0:0 "lo\\n"', "/default": 'file 0644 0:0 "2\\n"'},
)

reference(
    "variables-of-bash",
    "variables: # ## % %% / // and ?",
    r"""
FROM corpus/base:1
ENV path=/usr/local/lib/x.tar.gz
ENV a=${path##*/} b=${path#*/} c=${path%.*} d=${path%%.*} e=${path/l/L} f=${path//\//-} g=${path:?there}
""",
    {},
    config={
        "Env": [
            "PATH=/bin:/sbin:/usr/bin:/usr/sbin",
            "path=/usr/local/lib/x.tar.gz",
            "a=x.tar.gz",
            "b=usr/local/lib/x.tar.gz",
            "c=/usr/local/lib/x.tar",
            "d=/usr/local/lib/x",
            "e=/usr/Local/lib/x.tar.gz",
            "f=-usr-local-lib-x.tar.gz",
            "g=/usr/local/lib/x.tar.gz",
        ]
    },
)

reference(
    "add-options",
    "ADD --checksum and --unpack",
    f"""
FROM corpus/base:1
ARG digest={hashlib.sha256(SERVED["file.txt"]).hexdigest()}
ADD --checksum=sha256:$digest http://127.0.0.1:{PORT}/file.txt /checked
ADD --unpack=true http://127.0.0.1:{PORT}/a.tar /unpacked/
ADD --unpack=false a.tar /packed/
""",
    {
        "/checked": 'file 0600 0:0 "from the net\\n" @',
        "/unpacked": "dir 0755 0:0",
        "/unpacked/in": 'file 0644 0:0 "in\\n" @',
        "/packed": "dir 0755 0:0",
        "/packed/a.tar": f"file 0644 0:0 {len(SERVED['a.tar'])} bytes "
        f"{hashlib.sha256(SERVED['a.tar']).hexdigest()[:16]} @",
    },
    served=SERVED,
    context={"a.tar": SERVED["a.tar"]},
)

reference(
    "copy-from-later",
    "COPY --from a stage that comes later in the file",
    """
FROM corpus/base:1 AS last
COPY --from=first /f /f
FROM corpus/base:1 AS first
RUN echo first > /f
""",
    {"/f": 'file 0644 0:0 "first\\n"'},
    options=("--target", "last"),
)

reference(
    "arguments-of-stages",
    "ARG: a stage from a stage goes on with that one's, unlike dockerd's",
    """
FROM corpus/base:1 AS one
ARG A=1
FROM one AS two
RUN echo "[$A]" > /inherited
""",
    {"/inherited": 'file 0644 0:0 "[1]\\n"'},
)

reference(
    "copy-above",
    "COPY: .. leads nowhere above the context",
    """
FROM corpus/base:1
COPY ../../f /../../g
""",
    {"/g": 'file 0644 0:0 "f\\n" @'},
    context={"f": "f\n"},
)

reference(
    "start-interval",
    "HEALTHCHECK --start-interval",
    """
FROM corpus/base:1
HEALTHCHECK --start-interval=2s --start-period=10s CMD ["true"]
""",
    {},
    config={
        "Healthcheck": {
            "Test": ["CMD", "true"],
            "StartInterval": 2_000_000_000,
            "StartPeriod": 10_000_000_000,
        }
    },
)

reference(
    "automatic-platform-arguments",
    "TARGETPLATFORM and the like",
    """
FROM --platform=$BUILDPLATFORM corpus/base:1
RUN echo "[$TARGETARCH]" > /undeclared
ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT
RUN echo "$TARGETPLATFORM $TARGETOS $TARGETARCH [$TARGETVARIANT]" > /declared
""",
    {
        "/undeclared": 'file 0644 0:0 "[]\\n"',
        "/declared": 'file 0644 0:0 "linux/amd64 linux amd64 []\\n"',
    },
)

reference(
    "directives",
    "directives syntax and check",
    """
# syntax=docker/dockerfile:1
# check=skip=JSONArgsRecommended
FROM corpus/base:1
CMD echo hi
""",
    {},
    config={"Cmd": ["/bin/sh", "-c", "echo hi"]},
)
