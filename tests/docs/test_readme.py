"""The program in the README, on every event loop, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .._cgroups import needs_controllers
from .._ordinary import USER, run_as_ordinary_user
from .._slowness import SLOWNESS
from ..conftest import EVENT_LOOPS
from .test_blocks import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

SAID = "exited 0 b'42\\n'\n"
LIMITS = ', memory="64M", cpus=0.5, pids=32'
LOOPS = pytest.mark.parametrize("loop", EVENT_LOOPS.values(), ids=EVENT_LOOPS)


def program(id: str, runtime: Path, rootfs: Path, root: Path, loop: tuple[str, dict[str, object]]) -> str:
    """The README's program, with this test's runtime, directories, id and event loop."""
    [block] = blocks(ROOT / "README.md")
    backend, options = loop
    code = block.code
    for written, meant in (
        ("timeout=10", f"timeout=60, name={id!r}"),
        ("Runc()", f"Runc({str(runtime)!r}, root={str(root)!r})"),
        ('await busybox_rootfs("rootfs")', repr(str(rootfs))),
        ("anyio.run(main)", f"anyio.run(main, backend={backend!r}, backend_options={options})"),
    ):
        assert written in code
        code = code.replace(written, meant)
    return code


@LOOPS
def test_as_root(
    loop: tuple[str, dict[str, object]], runtime_path: Path, rootfs: Path, state_root: Path, new_id: Callable[[], str]
) -> None:
    needs_controllers("memory", "cpu", "pids")
    text = program(new_id(), runtime_path, rootfs, state_root, loop)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60 * SLOWNESS, cwd=ROOT)
    assert (done.stdout, done.stderr) == (SAID, "")


@LOOPS
def test_as_an_ordinary_user(
    loop: tuple[str, dict[str, object]],
    runtime_path: Path,
    rootfs: Path,
    new_id: Callable[[], str],
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
        home = Path(name)
        shutil.copytree(rootfs, home / "rootfs", symlinks=True)
        os.chown(home, USER, USER)
        text = program(new_id(), runtime_path, home / "rootfs", home / "state", loop)
        assert LIMITS in text
        text = text.replace(LIMITS, "")  # they need cgroups of one's own: see docs/howto/rootless.md
        done = run_as_ordinary_user(text, env={"XDG_RUNTIME_DIR": name, "TMPDIR": name, "HOME": name})
        assert (done.stdout, done.stderr) == (SAID, "")
        left = [path.name for path in (home / "state").iterdir() if not path.name.startswith(".")]
        assert left == []
