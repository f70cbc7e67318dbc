"""Every example does what it says, run as its user runs it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .._cgroups import needs_controllers
from .._ordinary import USER, run_as_ordinary_user
from .._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONUNBUFFERED": "1"}


def example(name: str, *arguments: object, **keywords: Any) -> subprocess.Popen[str]:
    """Start an example; it writes to one pipe."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENVIRONMENT, "TMPDIR": os.environ["TMPDIR"]},
        **keywords,
    )


def finished(process: subprocess.Popen[str], input: str | None = None) -> tuple[int, str]:
    """Its status and what it wrote."""
    output, _ = process.communicate(input, timeout=60 * SLOWNESS)
    return process.returncode, output


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it wrote until a line that has these words in it."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} did not come: {seen}")


@pytest.fixture
def limited() -> None:
    """For examples that limit their containers."""
    needs_controllers("memory", "cpu", "pids")


@pytest.mark.usefixtures("limited")
def test_quickstart() -> None:
    status, output = finished(example("quickstart.py"))
    assert status == 0, output
    assert "ended with 0 and said Linux container" in output
    assert "ended with 3 and said 5" in output


class TestDemo:
    shown = ("3: from the first pipe", "open: 0 1 2 3 4", "argv[0] runc", "(deleted)", "trio", "sealed copy")

    def test_as_root(self) -> None:
        status, output = finished(example("demo.py"))
        assert status == 0, output
        assert [words for words in self.shown if words not in output] == []
        assert "3 containers, as root" in output

    def test_as_an_ordinary_user(self) -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
            os.chown(name, USER, USER)
            ended = run_as_ordinary_user(
                "demo['main']()",
                # Rich loads some of itself when it first prints.
                before="import runpy; demo = runpy.run_path('examples/demo.py'); import rich; rich.print(end='')",
                env={"TMPDIR": name, "XDG_RUNTIME_DIR": name, "HOME": name},
            )
            assert (ended.returncode, ended.stderr) == (0, "")
            assert [words for words in self.shown if words not in ended.stdout] == []
            assert f"3 containers, rootless, as user {USER}" in ended.stdout
            assert os.listdir(name) == []


@pytest.mark.usefixtures("limited")
class TestJobs:
    @pytest.fixture
    def jobs(self, tmp_path: Path, runtime_path: Path, new_id: Callable[[], str]) -> Callable[..., Any]:
        """Starts the runner on jobs in TOML, always with the same state."""
        prefix = new_id()

        def start(text: str) -> subprocess.Popen[str]:
            path = tmp_path / "jobs.toml"
            path.write_text(text)
            options = ["--state", tmp_path / "jobs", "-n", 2, "--backoff", 0.05, "--grace", 0.1, "--prefix", prefix]
            return example("jobs.py", path, *options, "--runtime", runtime_path)

        return start

    def test_logs_limits_retries_and_time_limits(self, jobs: Callable[..., Any], tmp_path: Path) -> None:
        text = """
            [[job]]
            name = "good"
            args = ["sh", "-c", "echo hello from $(hostname), $WORD; ulimit -n"]
            env = {WORD = "well"}
            [[job]]
            name = "flaky"
            args = ["sh", "-c", "echo try; exit 5"]
            retries = 2
            [[job]]
            name = "slow"
            args = ["sleep", "60"]
            timeout = 0.2
            [[job]]
            name = "impossible"
            args = ["true"]
            memory = "1K"
        """
        status, output = finished(jobs(text))
        assert status == 1, output
        logs = {path.stem: path.read_text() for path in (tmp_path / "jobs/logs").iterdir()}
        assert logs["good"].startswith("hello from good, well\n")
        assert logs["flaky"] == "try\n" * 3
        done = json.loads((tmp_path / "jobs/done.json").read_text())
        assert done["good"] == "succeeded"
        assert done["flaky"] == "failed with 5"
        assert done["slow"] == "timed out after 0.2 s"
        assert done["impossible"].startswith("could not be run: memory")
        assert "flaky: failed with 5; again in 0.1 s" in output
        status, output = finished(jobs(text))
        assert "good: succeeded earlier" in output

    def test_a_live_table_on_a_terminal(self, runtime_path: Path, new_id: Callable[[], str], tmp_path: Path) -> None:
        (tmp_path / "jobs.toml").write_text('[[job]]\nname = "one"\nargs = ["sleep", "0.5"]\n')
        master, slave = os.openpty()
        options = ("--state", tmp_path / "jobs", "--prefix", new_id(), "--runtime", runtime_path)
        program = [sys.executable, EXAMPLES / "jobs.py", tmp_path / "jobs.toml", *options]
        environment = {**ENVIRONMENT, "TERM": "xterm-256color", "TMPDIR": os.environ["TMPDIR"]}
        process = subprocess.Popen(list(map(str, program)), stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        shown = b""
        with open(master, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # EIO: nobody has it open
            while chunk := terminal.read(4096):
                shown += chunk
        assert process.wait(timeout=20 * SLOWNESS) == 0
        output = shown.decode()
        assert output.index("0 of 1 done, 1 at work") < output.index("1 of 1 done, 0 at work")
        assert "succeeded" in output

    def test_sigterm_leaves_no_container(self, jobs: Callable[..., Any], tmp_path: Path) -> None:
        names = ("one", "two", "three")
        runner = jobs("".join(f'[[job]]\nname = "{name}"\nargs = ["sleep", "60"]\n' for name in names))
        read_until(runner, "one: runs")
        runner.send_signal(signal.SIGTERM)
        status, output = finished(runner)
        assert status == 3, output
        assert "one: stopped" in output
        assert "three: not run" in output
        assert list((tmp_path / "jobs/containers").glob("[!.]*")) == []  # crun's caches begin with a dot

    def test_the_next_one_takes_over_what_a_killed_one_left(self, jobs: Callable[..., Any], tmp_path: Path) -> None:
        text = '[[job]]\nname = "long"\nargs = ["sh", "-c", "echo begun; sleep 4; echo ended"]\n'
        runner = jobs(text)
        read_until(runner, "long: runs")
        runner.kill()
        finished(runner)
        status, output = finished(jobs(text))
        assert "long: taken over" in output
        assert (tmp_path / "jobs/logs/long.log").read_text() == "begun\nended\n"
        if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 15):
            assert status == 0, output  # older kernels tell nobody but the parent how it ended


@pytest.mark.usefixtures("limited")
class TestStreamsTrio:
    def test_output_as_it_comes_and_a_second_attempt(self, runtime_path: Path, new_id: Callable[[], str]) -> None:
        prefix = new_id()
        process = example("streams_trio.py", "--runtime", runtime_path, "--prefix", prefix, stdin=subprocess.PIPE)
        status, output = finished(process, "echo one; echo oops >&2\nexit 4\nprintf unfinished\n")
        assert status == 1, output
        lines = output.splitlines()
        for line in ("-0 | one", "-0 (stderr) | oops", "-2 | unfinished", "-0 ended with 0"):
            assert f"{prefix}{line}" in lines
        assert lines.count(f"{prefix}-1 ended with 4") == 2

    def test_sigterm_ends_it_at_once(self, runtime_path: Path, new_id: Callable[[], str]) -> None:
        options = ("--runtime", runtime_path, "--prefix", new_id())
        process = example("streams_trio.py", *options, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write("echo begun; sleep 60\n")
        process.stdin.flush()
        read_until(process, "| begun")
        process.send_signal(signal.SIGTERM)
        status, output = finished(process)
        assert status == 3, output
        assert "stopped by SIGTERM" in output


class TestNoRuntime:
    @pytest.fixture
    def depot(self, tmp_path: Path, runtime_path: Path) -> Iterator[str]:
        """Another host, which has the runtime's bytes; its address."""
        folder = tmp_path / "depot"
        folder.mkdir()
        shutil.copy(runtime_path, folder / "runtime")

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing."""

        with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}/runtime"
            server.shutdown()
            thread.join()

    @pytest.mark.usefixtures("limited")
    def test_a_container_where_the_host_has_no_runtime(
        self, depot: str, rootfs: Path, runtime_path: Path, tmp_path: Path
    ) -> None:
        """In a mount namespace where every runtime on PATH is hidden."""
        paths = {shutil.which(name) for name in ("runc", "crun", str(runtime_path))} - {None}
        hide = " && ".join(f"mount --bind /dev/null {path}" for path in paths)
        digest = hashlib.sha256(runtime_path.read_bytes()).hexdigest()
        script = f'{hide} && exec "$0" "$@"'
        unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", script]
        program = [sys.executable, EXAMPLES / "no_runtime.py", depot, digest, rootfs, "--", "sh", "-c", "id -u; exit 4"]
        done = subprocess.run(
            [*unshare, *map(str, program)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60 * SLOWNESS
        )
        assert done.returncode == 4, done.stderr
        told, uid = done.stdout.splitlines()
        assert told.startswith("on this host: no runc; in memory: ")
        assert uid == "0"

    def test_bytes_that_are_not_the_expected_ones_are_not_executed(self, depot: str, rootfs: Path) -> None:
        status, output = finished(example("no_runtime.py", depot, "0" * 64, rootfs, "--", "true"))
        assert status == 1
        assert "not the expected 0000" in output
