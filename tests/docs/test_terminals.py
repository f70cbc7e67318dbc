"""The program that attaches one's own terminal, run as its user runs it: in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

from .._cgroups import needs_controllers
from .._slowness import SLOWNESS
from .test_blocks import ROOT, all_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read_until(terminal: int, words: bytes) -> bytes:
    """What is shown on a terminal until some words are there."""
    shown = b""
    while words not in shown:
        shown += os.read(terminal, 4096)
    return shown


def test_a_shell_in_a_container(
    tmp_path: Path, runtime_path: Path, state_root: Path, new_id: Callable[[], str]
) -> None:
    needs_controllers("pids")
    page = ROOT / "docs/howto/terminals.md"
    [code] = [block.code for block in all_blocks(page) if block.driver == "tests/docs/test_terminals.py"]
    code = code.replace("Runc()", f"Runc({str(runtime_path)!r}, root={str(state_root)!r})")
    code = code.replace('"shell"', repr(new_id()))
    master, slave = os.openpty()
    termios.tcsetwinsize(master, (31, 101))
    settings = termios.tcgetattr(slave)
    shell = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        read_until(master, b"# ")
        os.write(master, b"stty size; hostname\r")
        assert b"31 101\r\ncontainer\r\n" in read_until(master, b"container\r\n")
        os.write(master, b"exit 5\r")
        assert shell.wait(timeout=60 * SLOWNESS) == 5
        assert termios.tcgetattr(slave) == settings
    finally:
        shell.kill()
        shell.wait()
        os.close(master)
        os.close(slave)
