"""Real programs under the filter of system calls: they work as they do without it.

The suite runs a few of each. ``RUNC_ASYNC_PROGRAMS=all`` runs a good part of CPython's own test suite, too, in ten
minutes per choice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import PipeIO, Runc, default_spec, temporary_bundle

from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7200)]

CHOICES = ("default", "strict")

FEW = "test_fcntl test_mmap test_posixpath test_select"
MANY = """
    test_asyncio test_concurrent_futures test_ctypes test_eintr test_epoll test_faulthandler test_fcntl test_fork1
    test_hashlib test_httplib test_io test_ioctl test_mmap test_multiprocessing_fork test_openpty test_os test_pathlib
    test_poll test_posix test_pty test_resource test_select test_selectors test_shutil test_signal test_socket
    test_socketserver test_sqlite3 test_ssl test_subprocess test_tarfile test_tempfile test_thread test_threading
    test_time test_urllib2_localnet test_wait3 test_wait4
"""
MODULES = (MANY if os.environ.get("RUNC_ASYNC_PROGRAMS") == "all" else FEW).split()

# What apt-get needs to become the user _apt and to give files to others, as in an image that is being built.
TO_INSTALL = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID"]


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is proved here is the filter."""
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """This machine's own root file system, without what is mounted below it, read-only in a container."""
    if os.geteuid() != 0:
        pytest.skip("binding / to another place needs root: run the suite as root")
    folder = tmp_path / "machine"
    folder.mkdir()
    subprocess.run(["mount", "--bind", "/", folder], check=True)
    subprocess.run(["mount", "--make-private", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def run(runc: Runc, machine: Path, new_id: Callable[[], str]) -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs a program of this machine; its status, and what it wrote to both streams."""

    async def run(*args: str, **keywords: Any) -> tuple[int, str]:
        environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LANG": "C.UTF-8"}
        settings = {"env": environment, "cwd": "/tmp", "tmp": "1G", "rootless": False, "pids": None, **keywords}
        spec = default_spec(["sh", "-c", 'exec "$@" 2>&1', "sh", *args], **settings)
        output = bytearray()
        async with (
            temporary_bundle(spec, rootfs=machine) as bundle,
            PipeIO(stdin=False, stderr=False) as io,
            anyio.create_task_group() as group,
        ):
            group.start_soon(read_all, io.stdout, output)
            status = await runc.run(new_id(), bundle, io=io)
        return status, output.decode(errors="replace")

    return run


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: install the Debian package {package}")


@pytest.mark.parametrize("choice", CHOICES)
async def test_a_compiler_and_what_it_makes(run: Callable[..., Any], choice: str) -> None:
    needs("gcc", "gcc")
    script = """
        printf '#include <pthread.h>\\n#include <stdio.h>\\n
        static void *say(void *word) { puts(word); return 0; }
        int main(void) { pthread_t t; pthread_create(&t, 0, say, "made"); return pthread_join(t, 0); }' >a.c
        gcc -O2 -pipe -Wall -o a a.c && ./a
    """
    assert await run("sh", "-c", script, seccomp=choice) == (0, "made\n")


@pytest.mark.parametrize("choice", CHOICES)
async def test_node_with_a_process_a_thread_and_a_server(run: Callable[..., Any], choice: str) -> None:
    needs("node", "nodejs")
    script = textwrap.dedent("""
        const {Worker} = require("worker_threads"), net = require("net"), fs = require("fs");
        console.log(require("child_process").execSync("echo process").toString().trim());
        new Worker('console.log("thread")', {eval: true}).on("exit", () => {
            const server = net.createServer(s => s.end("served")).listen(0, "127.0.0.1", () =>
                net.connect(server.address().port).on("data", d => { console.log(`${d}`); server.close(); }));
        });
        fs.promises.writeFile("/tmp/x", "y");
    """)
    assert await run("node", "-e", script, seccomp=choice) == (0, "process\nthread\nserved\n")


@pytest.mark.parametrize("choice", CHOICES)
async def test_a_jvm_with_threads_and_sockets(run: Callable[..., Any], choice: str) -> None:
    needs("javac", "default-jdk-headless")
    source = """
        import java.net.*; import java.nio.file.*; import java.util.concurrent.*;
        public class A { public static void main(String[] a) throws Exception {
            try (var server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
                var pool = Executors.newFixedThreadPool(4);
                var got = pool.submit(() -> { try (var s = server.accept()) { return s.getInputStream().read(); } });
                try (var s = new Socket(server.getInetAddress(), server.getLocalPort())) {
                    s.getOutputStream().write(42); }
                System.gc();
                Files.writeString(Path.of("/tmp/x"), "y");
                System.out.println(got.get() + " " + new ProcessBuilder("true").start().waitFor());
                pool.shutdown();
            } } }
    """
    assert await run("sh", "-c", 'printf %s "$1" >A.java; java -Xmx128m A.java', "sh", source, seccomp=choice) == (
        0,
        "42 0\n",
    )


@pytest.mark.parametrize("choice", CHOICES)
async def test_busybox(run: Callable[..., Any], choice: str) -> None:
    needs("busybox", "busybox-static")
    script = """
        seq 3 | tac | tr '\\n' ' '; mkfifo f; (echo fifo >f) & cat f; tar c f | tar t; nice -n 1 id -u
        (echo served | nc -l -p 7000 127.0.0.1) &
        for attempt in 1 2 3 4 5 6 7 8 9; do sleep 0.5 | nc 127.0.0.1 7000 2>/dev/null && break; sleep 0.2; done
    """
    status, output = await run("busybox", "sh", "-c", script, seccomp=choice)
    assert (status, output) == (0, "3 2 1 fifo\nf\n0\nserved\n")


@pytest.mark.parametrize("choice", CHOICES)
async def test_apt_get_from_a_repository_of_its_own(run: Callable[..., Any], choice: str) -> None:
    needs("apt-get", "apt")
    needs("dpkg-deb", "dpkg")
    script = """
        set -e
        mkdir -p d/DEBIAN repo state/lists/partial cache/archives/partial
        printf 'Package: hello-there\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' >d/DEBIAN/control
        dpkg-deb --build -Zgzip d repo/hello-there_1_all.deb >/dev/null
        (cat d/DEBIAN/control; echo Filename: ./hello-there_1_all.deb; echo Size: $(stat -c %s repo/*.deb)
         echo SHA256: $(sha256sum <repo/hello-there_1_all.deb | cut -d' ' -f1)) >repo/Packages
        echo 'deb [trusted=yes] file:/tmp/repo ./' >list
        chmod -R a+rX . && chown -R _apt state cache
        o='-qq -o Dir::Etc::sourcelist=/tmp/list -o Dir::Etc::sourceparts=- -o Dir::State::lists=/tmp/state/lists -o Dir::Cache=/tmp/cache'
        apt-get $o update
        cd cache && apt-get $o download hello-there && dpkg-deb -f hello-there_1_all.deb Package
        apt-get $o install --simulate hello-there | tail -n 1
    """  # noqa: E501
    status, output = await run("sh", "-c", script, seccomp=choice, capabilities=TO_INSTALL)
    assert status == 0, output
    assert output.splitlines()[-2:] == ["hello-there", "Conf hello-there (1 localhost [all])"], output


@pytest.fixture
def python_with_tests() -> str:
    """The interpreter below this virtual environment, which must have CPython's tests."""
    python = os.path.realpath(sys.executable)
    if subprocess.run(
        [python, "-I", "-c", "import test.libregrtest, test.test_mmap"], check=False, stderr=subprocess.DEVNULL
    ).returncode:
        pytest.skip(
            "this Python has no tests of its own: run the suite with one that has (Debian: libpython3-testsuite)"
        )
    return python


async def test_cpythons_own_tests_fail_as_they_do_without_the_filter(
    run: Callable[..., Any], python_with_tests: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed: dict[str, set[str]] = {}
    for choice in ("unconfined", *CHOICES):
        folder = tmp_path / choice
        folder.mkdir()
        options = ["-j2", "--timeout=600", "--junit-xml=/tmp/out/results.xml"]
        _, output = await run(
            python_with_tests, "-m", "test", *options, *MODULES, seccomp=choice, mounts=[f"{folder}:/tmp/out"]
        )
        assert (folder / "results.xml").exists(), output
        cases = list(ElementTree.parse(folder / "results.xml").iter("testcase"))
        failed[choice] = {
            str(c.get("name")) for c in cases if c.find("failure") is not None or c.find("error") is not None
        }
        with capsys.disabled():
            print(f"\nCPython's tests, {choice}: {len(cases)} ran, {len(failed[choice])} failed")
        assert len(cases) > 50
    for choice in CHOICES:
        assert failed[choice] - failed["unconfined"] == set(), choice
