"""The doctor says whether containers can be run, by running one, and what to do where they cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runc_async.__main__ import main

from ._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHECKS = [
    "runtime", "version", "vulnerabilities", "features", "kernel", "/proc", "cgroup layout", "cgroup access",
    "rootless", "setpriv", "open files", "processes", "by its path", "by a descriptor", "sealed in memory",
    "limit of memory",
    "limit of processes", "limit of CPU time", "usage", "CRIU", "a container",
]  # fmt: skip

EXECUTORS = ["by its path", "by a descriptor", "sealed in memory"]

VERSION = "echo 'runc version 1.0.0'; echo 'spec: 1.0.2'"


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the lines by their names."""
    status = main(["doctor", "--json", *arguments])
    said = json.loads(capsys.readouterr().out)
    assert said["runnable"] is (status == 0)
    lines = {line["name"]: line for line in said["checks"]}
    assert all(line["state"] in ("good", "warning", "bad") and line["found"] for line in lines.values())
    assert all(line["advice"] for line in lines.values() if line["state"] == "bad")
    return status, lines


def test_it_runs_a_container_with_the_real_runtime(runtime_path: Path) -> None:
    command = [sys.executable, "-m", "runc_async", "doctor", "--json", "--runtime", str(runtime_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOWNESS)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line["name"]: line for line in json.loads(done.stdout)["checks"]}
    assert list(lines) == CHECKS
    assert lines["runtime"]["found"] == str(runtime_path)
    assert lines["version"]["found"].startswith(("runc ", "crun "))
    assert lines["a container"]["found"].startswith("ran ")
    assert {lines[name]["state"] for name in EXECUTORS} == {"good"}


def test_a_table_and_without_rich_plain_lines(
    runtime_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor", "--runtime", str(runtime_path)]) == 0
    table = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["doctor", "--runtime", str(runtime_path)]) == 0
    plain = capsys.readouterr().out
    for shown in (table, plain):
        assert all(name in shown for name in CHECKS)
        assert shown.endswith("Containers can be run.\n")
    assert "│" in table
    assert "│" not in plain


def test_no_runtime(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, lines = report(capsys, "--runtime", str(tmp_path / "runc"))
    assert status == 1
    assert lines["runtime"]["state"] == lines["a container"]["state"] == "bad"
    assert "apt-get install runc" in lines["runtime"]["advice"]
    assert lines["kernel"]["state"] == "good"


def test_a_runtime_that_is_not_on_path(
    runtime_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not os.path.exists("/usr/sbin/runc"):
        pytest.skip("runc is elsewhere than in /usr/sbin")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, lines = report(capsys)
    assert lines["runtime"]["state"] == "warning"
    assert 'Runc("/usr/sbin/runc")' in lines["runtime"]["advice"]
    assert lines["setpriv"]["state"] == "warning"
    assert status == 0


@pytest.mark.parametrize(
    ("script", "check", "state", "words"),
    [
        ("echo broken >&2; exit 3", "version", "bad", "broken"),
        (f"{VERSION}", "version", "warning", "runc 1.0.0"),
        ("echo 'youki version 0.5.0'", "version", "warning", "youki"),
        (f"case $* in *features*) echo '{{}}';; *) {VERSION};; esac", "features", "warning", "Linux"),
        (f"case $* in *--version) {VERSION};; *) exit 1;; esac", "a container", "bad", ""),
        (f"case $* in *' run '*) exit 9;; *) {VERSION};; esac", "a container", "bad", ""),
    ],
)
def test_what_is_wrong_with_a_runtime(
    fake_runtime: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    script: str,
    check: str,
    state: str,
    words: str,
) -> None:
    _, lines = report(capsys, "--runtime", str(fake_runtime(script)))
    assert lines[check]["state"] == state
    assert words in lines[check]["found"]


def test_a_file_that_is_not_executable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runc"
    path.write_text("#!/bin/sh\n")
    status, lines = report(capsys, "--runtime", str(path))
    assert (status, lines["runtime"]["state"]) == (1, "bad")
    assert "chmod +x" in lines["runtime"]["advice"]


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("doctor", "--runtime PATH", "--json", "--version", "exit status:", "rich"):
        assert word in shown


@pytest.mark.parametrize("arguments", [[], ["doctor", "--unknown"], ["nurse"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
