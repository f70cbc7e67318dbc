"""`examples/many_machines.py`, on this machine and on two workers that join a scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .._cgroups import needs_controllers
from .test_examples import ENVIRONMENT, example, finished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PRIMES = "1229 primes below 10000; "


@pytest.fixture
def options(
    rootfs: Path, runtime_path: Path, tmp_path: Path, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> list[object]:
    needs_controllers("memory", "cpu", "pids")
    monkeypatch.setitem(ENVIRONMENT, "DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    return [rootfs, "-n", 10, "--runtime", runtime_path, "--state", tmp_path / "workers", "--name", new_id()]


@pytest.fixture
def scheduler(options: list[object], tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with two workers."""
    file = tmp_path / "scheduler.json"

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--scheduler-file", str(file), *arguments]
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=ENVIRONMENT)

    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    processes = [start("scheduler", *local, "--port", "0")]
    processes += [start("worker", *local, "--no-nanny", "--nthreads", "2") for _ in range(2)]
    while (tmp_path / "log").read_text().count("Registered to:") != 2:
        assert all(process.poll() is None for process in processes), (tmp_path / "log").read_text()
    yield json.loads(file.read_text())["address"]
    for process in reversed(processes):
        process.terminate()
        process.wait(30)


def test_on_this_machine(options: list[object]) -> None:
    status, output = finished(example("many_machines.py", *options))
    assert status == 0, output
    assert PRIMES in output


def test_on_many(options: list[object], scheduler: str) -> None:
    status, output = finished(example("many_machines.py", *options, "--scheduler", scheduler, "--carry"))
    assert status == 0, output
    assert PRIMES in output
    assert output.count("tcp://127.0.0.1:") == 2  # both had some
