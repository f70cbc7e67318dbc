"""CRIU's log: the decisive lines are quoted, and only those of this call."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from runc_async import CommandError, ContainerNotRunningError
from runc_async._cli.criu_log import explain

if TYPE_CHECKING:
    from pathlib import Path

LOG = """\
(00.000100) Version: 4.2
(00.000200) Error (criu/util.c:1): Can't setup RLIMIT_NOFILE for self
(00.010000)      1: Error (criu/sk-inet.c:188): inet: Connected TCP socket, consider using --tcp-established option.
(00.010100) Error (criu/cr-dump.c:1900): Dump files (pid: 77) failed with -1
(00.010200) Error (criu/cr-dump.c:2300): Dumping FAILED.
"""


def error() -> CommandError:
    return CommandError(("runc", "checkpoint", "x"), 1, "criu failed: type NOTIFY errno 0", [])


def test_the_decisive_lines_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "dump.log").write_text(LOG)
    found = explain(error(), "dump.log", ["/no/such", str(tmp_path)], time.time_ns() - 10**9)
    assert found.message.startswith("criu failed: type NOTIFY errno 0; ")
    assert "consider using --tcp-established" in found.message
    assert "RLIMIT_NOFILE" not in found.message
    assert "Dumping FAILED" not in found.message
    assert (found.argv, found.status) == (error().argv, 1)


def test_a_log_of_an_earlier_call_or_without_errors_is_none(tmp_path: Path) -> None:
    given = error()
    log = tmp_path / "dump.log"
    log.write_text(LOG)
    os.utime(log, (1000, 1000))
    assert explain(given, "dump.log", [str(tmp_path)], time.time_ns()) is given
    log.write_text("(00.1) all is well\n")
    assert explain(given, "dump.log", [str(tmp_path)], time.time_ns() - 10**9) is given


def test_an_error_that_has_a_class_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "dump.log").write_text(LOG)
    given = ContainerNotRunningError(("runc",), 1, "container is not running", [])
    assert explain(given, "dump.log", [str(tmp_path)], 0) is given
