"""What the suite promises of itself: a test that fails, leaves things or hangs is named, and harms no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def run_suite(tmp_path: Path) -> Callable[..., str]:
    """Runs a file of tests with the fixtures of this suite, and gives what pytest says."""

    def run(tests: str, *options: str) -> str:
        file = PROJECT / f"tests/test_made_by_{os.getpid()}.py"
        file.write_text(tests)
        try:
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", tmp_path / "own", file]
            own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
            own["COLUMNS"] = "500"
            return subprocess.run([*command, *options], capture_output=True, text=True, cwd=PROJECT, env=own).stdout
        finally:
            file.unlink()

    return run


LEAVES = """
import os, subprocess

def test_leaves_a_process_a_zombie_and_an_orphan():
    os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    os.waitid(os.P_PID, os.posix_spawnp("true", ["true"], os.environ), os.WEXITED | os.WNOWAIT)
    subprocess.run(["sh", "-c", "sleep 60 &"])

def test_finds_nothing_of_it():
    from ._reaper import descendants
    assert descendants() == {}
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "worker"])
def test_what_a_test_leaves_is_its_own_error_and_is_gone_for_the_next(
    run_suite: Callable[..., str], workers: tuple[str, ...]
) -> None:
    said = run_suite(LEAVES, *workers)
    assert "2 passed, 1 error" in said, said
    (line,) = (line for line in said.splitlines() if line.startswith("ERROR"))
    assert "::test_leaves_a_process_a_zombie_and_an_orphan - AssertionError: left behind: {'processes': " in line
    assert line.count("'sleep'") == 2
    assert "('Z', 'true')" in line


HANGS = """
import subprocess, threading, time

def test_hangs():
    subprocess.Popen(["sleep", "4711"])
    threading.Event().wait()

def test_is_run_all_the_same():
    time.sleep(0.1)
"""


def test_a_test_that_hangs_is_named_and_the_others_are_run(run_suite: Callable[..., str]) -> None:
    said = run_suite(HANGS, "-n", "1", "--timeout", "2")
    assert "1 failed, 1 passed" in said, said
    assert "crashed while running 'tests/test_made_by_" in said
    assert "::test_hangs'" in said
    ended = subprocess.run(["pgrep", "-fx", "sleep 4711"], capture_output=True, text=True)
    assert ended.stdout == ""


HANGS_AFTER_A_FAILURE = """
import threading, time, pytest

@pytest.fixture
def hanging():
    yield
    threading.Event().wait()

def test_fails_and_hangs_in_its_clean_up(hanging):
    assert False

def test_is_run_all_the_same():
    time.sleep(0.1)
"""


def test_a_clean_up_that_hangs_after_a_failure_is_named_and_the_others_are_run(run_suite: Callable[..., str]) -> None:
    said = run_suite(HANGS_AFTER_A_FAILURE, "-n", "1", "--timeout", "2")
    assert "crashed while running 'tests/test_made_by_" in said, said
    assert "::test_fails_and_hangs_in_its_clean_up'" in said
    assert "1 passed" in said
