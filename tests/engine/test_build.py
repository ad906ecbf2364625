"""Dockerfiles built by the docker command and docker-py: what each instruction does to the image."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest
from tests.support import busybox, isolation
from tests.support.agent import AgentUnderTest
from tests.support.builds import FROM, Project

pytestmark = [
    pytest.mark.skipif(isolation.current() is None, reason="needs a session (make test)"),
    pytest.mark.skipif(not busybox.available(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker CLI"),
]


@pytest.fixture
def project(agent: AgentUnderTest, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "context"
    directory.mkdir()
    project = Project(agent, directory)
    yield project
    project.clear()


def config(project: Project, image: str = "t") -> dict[str, Any]:
    inspected: dict[str, Any] = project.agent.client.api.inspect_image(image)
    return inspected


def steps(project: Project, image: str = "t") -> list[str]:
    """Of the history, oldest first, without the base's."""
    history = project.agent.client.api.history(image)
    return [entry["CreatedBy"] for entry in reversed(history)][1:]


def test_output_is_that_of_the_classic_builder(project: Project) -> None:
    said = project.build(FROM + 'RUN echo out; echo err >&2\nCMD ["true"]\n', "-t", "t", "-t", "u:2")
    image = config(project)["Id"][7:19]
    assert "Step 1/3 : FROM busybox:test\n ---> " in said
    assert "Step 2/3 : RUN echo out; echo err >&2\n ---> Running in " in said
    assert "\nout\n" in said and "\nerr\n" in said
    assert said.endswith(
        f" ---> {image}\nSuccessfully built {image}\nSuccessfully tagged t:latest\nSuccessfully tagged u:2\n"
    )
    assert config(project, "u:2")["Id"] == config(project)["Id"]


def test_quiet_and_iidfile(project: Project, tmp_path: Path) -> None:
    said = project.build(FROM + "LABEL a=b\n", "-q", "--iidfile", str(tmp_path / "id"), "-t", "t")
    assert said.strip().endswith(config(project)["Id"])
    assert (tmp_path / "id").read_text().strip() == config(project)["Id"]


def test_a_quiet_build_that_fails_says_what_was_said(project: Project) -> None:
    assert "out\n" in project.build(FROM + "RUN echo out; exit 4\n", "-q", code=4)


def test_docker_py_builds(project: Project) -> None:
    project.write({"Dockerfile": FROM + "COPY f /f\nRUN echo hello\n", "f": "x"})
    image, log = project.agent.client.images.build(path=str(project.directory), tag="t", rm=True)
    assert image.tags == ["t:latest"]
    assert any(entry.get("stream") == "hello\n" for entry in log)
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 7"):
        project.agent.client.images.build(fileobj=io.BytesIO(f"{FROM}RUN exit 7\n".encode()))


def test_settings(project: Project) -> None:
    project.build(
        FROM + 'ENV A=1 B="two words"\nENV A=2$A\nENTRYPOINT ["/bin/echo"]\nCMD ["x"]\nLABEL l="v w"\n'
        "EXPOSE 80 53/udp\nVOLUME /data /more\nUSER 1000:1000\nWORKDIR /w/x\nWORKDIR y\nSTOPSIGNAL SIGINT\n"
        'HEALTHCHECK --interval=5s --retries=2 CMD true\nSHELL ["/bin/sh", "-ec"]\n'
        "ONBUILD RUN echo\nMAINTAINER somebody\n",
        "-t",
        "t",
    )
    found = config(project)
    about = found["Config"]
    assert about["Env"][-2:] == ["A=21", "B=two words"]
    assert (about["Entrypoint"], about["Cmd"]) == (["/bin/echo"], ["x"])
    assert about["Labels"] == {"l": "v w"}
    assert sorted(about["ExposedPorts"]) == ["53/udp", "80/tcp"]
    assert sorted(about["Volumes"]) == ["/data", "/more"]
    assert (about["User"], about["WorkingDir"], about["StopSignal"]) == ("1000:1000", "/w/x/y", "SIGINT")
    assert about["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 2}
    assert (about["Shell"], about["OnBuild"]) == (["/bin/sh", "-ec"], ["RUN echo"])
    assert found["Author"] == "somebody"
    assert steps(project)[:4] == [
        "/bin/sh -c #(nop)  ENV A=1 B=two words",
        "/bin/sh -c #(nop)  ENV A=21",
        '/bin/sh -c #(nop)  ENTRYPOINT ["/bin/echo"]',
        '/bin/sh -c #(nop)  CMD ["x"]',
    ]


def test_an_entrypoint_takes_the_bases_command_away(project: Project) -> None:
    assert config(project, "busybox:test")["Config"]["Cmd"] == ["sh"]
    project.build(FROM + "ENTRYPOINT echo\n", "-t", "t")
    assert not config(project)["Config"].get("Cmd")
    assert config(project)["Config"]["Entrypoint"] == ["/bin/sh", "-c", "echo"]


def test_onbuild_is_carried_out_once(project: Project) -> None:
    project.build(FROM + "ONBUILD COPY f /f\nONBUILD RUN cat /f\n", "-t", "base")
    project.write({"f": "of the child\n"})
    said = project.build("FROM base\nRUN true\n", "-t", "t")
    assert "# Executing 2 build triggers\n" in said and "of the child" in said
    assert not config(project)["Config"].get("OnBuild")


def test_arguments(project: Project) -> None:
    said = project.build(
        "ARG TAG=none\nARG OUT=outer\nFROM busybox:$TAG\nARG OUT\nARG X=default\nARG Y\nENV Y=env\n"
        "RUN echo [$OUT $X $Y $HTTP_PROXY]\n",
        *("--build-arg", "TAG=test", "--build-arg", "X=given", "--build-arg", "Y=arg"),
        *("--build-arg", "HTTP_PROXY=p", "--build-arg", "UNUSED=1", "-t", "t"),
    )
    assert "[outer given env p]" in said
    assert "One or more build-args [UNUSED] were not consumed" in said
    assert steps(project)[-1] == "|2 OUT=outer X=given /bin/sh -c echo [$OUT $X $Y $HTTP_PROXY]"


def test_labels_and_target_of_the_command_line(project: Project) -> None:
    project.build(
        "FROM busybox:test AS one\nRUN echo > /one\nFROM busybox:test\nRUN exit 1\n",
        *("--target", "one", "--label", "a=b", "-t", "t"),
    )
    assert config(project)["Config"]["Labels"] == {"a": "b"}
    assert project.run("t", "ls", "/one") == "/one\n"


def test_stages_that_nobody_needs_are_skipped(project: Project) -> None:
    said = project.build(
        "FROM busybox:test AS unused\nRUN exit 1\nFROM busybox:test AS made\nRUN echo made > /m\n"
        "FROM made AS more\nFROM scratch\nCOPY --from=more /m /\nCOPY --from=1 /m /n\n"
        "COPY --from=busybox:test /bin/busybox /cat\n",
        *("-t", "t"),
    )
    assert "exit 1" not in said and "Step 6/6" not in said and "Step 7/7" in said
    assert project.run("t", "/cat", "/m", "/n") == "made\nmade\n"


def test_copy(project: Project) -> None:
    project.write({"a.txt": "a", "b.txt": "b", "d/e/f": "f", "d/run": "#!"})
    os.chmod(project.directory / "d/run", 0o755)
    os.symlink("run", project.directory / "d/link")
    os.utime(project.directory / "a.txt", (1000, 1000))
    project.build(
        FROM
        + "RUN mkdir /dir && ln -s dir /to\nWORKDIR /w\nCOPY a.txt renamed\nCOPY *.txt /to/\nCOPY d /to\n"
        "COPY --chown=1:2 a.txt /new/sub/\nCOPY --chmod=600 a.txt /dir/secret\nCOPY --chown=bob ./d/e/ /e\n"
        "COPY --link a.txt /linked/\nCOPY . /all\n",
        *("-t", "t"),
    )
    listed = project.run(
        "t", "sh", "-c", "stat -c '%n %a %u:%g %F' /w/* /dir/* /new /new/sub/* /e /e/f /linked/* /all/a.txt"
    )
    assert listed.splitlines() == [
        "/w/renamed 644 0:0 regular file",
        "/dir/a.txt 644 0:0 regular file",
        "/dir/b.txt 644 0:0 regular file",
        "/dir/e 755 0:0 directory",
        "/dir/link 777 0:0 symbolic link",
        "/dir/run 755 0:0 regular file",
        "/dir/secret 600 0:0 regular file",
        "/new 755 1:2 directory",
        "/new/sub/a.txt 644 1:2 regular file",
        "/e 755 1000:1000 directory",
        "/e/f 644 1000:1000 regular file",
        "/linked/a.txt 644 0:0 regular file",
        "/all/a.txt 644 0:0 regular file",
    ]
    assert project.run("t", "stat", "-c", "%Y", "/w/renamed") == "1000\n"


def test_copy_refuses_what_is_not_there_before_anything_is_built(project: Project) -> None:
    project.write({"Dockerfile": FROM + "RUN exit 9\nCOPY nothing /\nADD none* /x/\n"})
    said = project.build(None, code=1)
    assert "Step" not in said
    assert "Dockerfile:3: COPY: nothing is not in the context" in said and "Dockerfile:4: ADD: none*" in said


def test_links_of_the_context_lead_nowhere_out(project: Project) -> None:
    (project.directory / "out").symlink_to("/etc/passwd")
    (project.directory / "up").symlink_to("../../../../../../etc")
    project.write({"etc/passwd": "of the context"})
    project.build(FROM + "COPY out /out\nCOPY up/passwd /up\n", "-t", "t")
    assert project.run("t", "cat", "/out", "/up") == 2 * "of the context"


def test_dockerignore_is_the_clients_but_for_two_files(project: Project) -> None:
    project.write({".dockerignore": "Dockerfile\n.dockerignore\n*.o\n", "a.o": "", "a.c": ""})
    project.build(FROM + "COPY . /c\n", "-t", "t")
    assert project.run("t", "ls", "-A", "/c") == "a.c\n"


def test_add_unpacks_archives(project: Project) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        member = tarfile.TarInfo("in/file")
        member.uid, member.size = 5, 3
        tar.addfile(member, io.BytesIO(b"abc"))
    project.write({"a.tar.gz": data.getvalue(), "plain": "p"})
    project.build(FROM + "ADD a.tar.gz plain /x/\nCOPY a.tar.gz /y/\n", "-t", "t")
    assert project.run("t", "sh", "-c", "cat /x/in/file; stat -c %u /x/in/file; ls /x /y") == (
        "abc5\n/x:\nin\nplain\n\n/y:\na.tar.gz\n"
    )


@pytest.fixture
def web() -> Iterator[str]:
    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/file.txt" else 404)
            self.send_header("Last-Modified", "Thu, 01 Jan 1970 01:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"from afar")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_add_downloads(project: Project, web: str) -> None:
    digest = hashlib.sha256(b"from afar").hexdigest()
    project.build(
        FROM + f"ADD --checksum=sha256:{digest} {web}/file.txt /d/\nADD {web}/file.txt /e\n", "-t", "t"
    )
    assert project.run("t", "stat", "-c", "%n %a %Y", "/d/file.txt", "/e") == (
        "/d/file.txt 600 3600\n/e 600 3600\n"
    )
    said = project.build(FROM + f"ADD --checksum=sha256:{64 * '0'} {web}/file.txt /d/\n", code=1)
    assert f"Dockerfile:2: {web}/file.txt has the digest sha256:{digest}, not sha256:0000" in said
    assert "404" in project.build(FROM + f"ADD {web}/nothing /d/\n", code=1)


def test_heredocs(project: Project) -> None:
    said = project.build(
        FROM + 'ARG X=y\nCOPY <<one <<"two" /h/\nx is $X\none\nx is $X\ntwo\nCOPY <<EOF /file\nalone\nEOF\n'
        "RUN <<EOF\necho first\necho second\nEOF\nRUN <<EOF\n#!/bin/cat\nI am cat\nEOF\n"
        "RUN sh -s a <<EOF\necho third $1\nEOF\n",
        *("-t", "t"),
    )
    assert "first\nsecond\n" in said and "#!/bin/cat\nI am cat\n" in said and "third" in said
    assert project.run("t", "cat", "/h/one", "/h/two", "/file") == "x is y\nx is $X\nalone\n"


def test_a_file_from_standard_input_and_one_outside_the_context(project: Project, tmp_path: Path) -> None:
    assert "Successfully built" in project.build(None, input=FROM + "RUN true\n")
    other = tmp_path / "other.Dockerfile"
    other.write_text(FROM + "COPY . /c\n")
    project.write({"f": ""})
    project.build(None, "-f", str(other), "-t", "t")
    assert project.run("t", "ls", "-A", "/c") == "f\n"


def test_what_is_not_supported_is_refused_by_name(project: Project) -> None:
    api = project.agent.client.api
    for query, status, text in (
        ("version=2", 501, "BuildKit is not supported"),
        ("remote=https://host/x.git", 501, "remote contexts are not supported"),
        ("squash=1", 501, "squash of a build is not supported"),
        ("platform=linux/s390x", 501, "platform linux/s390x is not supported"),
        ("t=UPPER", 400, "must be lowercase"),
        ("dockerfile=no", 400, "Cannot locate specified Dockerfile: no"),
    ):
        answer = api.post(f"{api.base_url}/v1.47/build?{query}", data=tar({"x": b""}))
        assert (answer.status_code, text in answer.json()["message"]) == (status, True), answer.json()


def tar(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_context_that_leads_out_is_refused(project: Project) -> None:
    api = project.agent.client.api
    for body, text in (
        (tar({"Dockerfile": b"FROM scratch", "../out": b""}), "leads out of it"),
        (b"no tar" * 200, "context"),
        (tar({"Dockerfile": b"FROM scratch"})[:520], "context"),
    ):
        answer = api.post(f"{api.base_url}/v1.47/build", data=body)
        assert (answer.status_code, text in answer.json()["message"]) == (400, True), answer.json()
    project.nothing_is_left()


def test_our_own_endpoint_tells_of_steps_and_gives_the_root(project: Project) -> None:
    api = project.agent.client.api
    context = tar({"Dockerfile": FROM.encode() + b"RUN echo x > /made\n"})
    answer = api.post(f"{api.base_url}/hawse/v1/build", data=b"{}\n" + context)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    told = [line["step"] for line in lines if "step" in line]
    assert [(step["number"], step["state"]) for step in told] == [
        (1, "started"),
        (1, "done"),
        (2, "started"),
        (2, "done"),
    ]
    assert told[-1]["place"] == "Dockerfile:2" and told[-1]["text"] == "RUN echo x > /made"
    image = next(line["aux"]["ID"] for line in lines if "aux" in line)
    root = api.get(f"{api.base_url}/hawse/v1/images/{image}/rootfs").content
    listed = subprocess.run(["tar", "-t"], input=root, capture_output=True, check=True).stdout.decode()
    assert {"made", "bin/busybox"} <= set(listed.splitlines())
