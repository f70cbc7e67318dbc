"""The three lines of the README, on every event loop, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
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

SAID = "0 b'container\\n'"
UNTIL_IT_RUNS = """
    while open(f"/proc/{container.pid}/comm").read() != "sleep\\n":
        pass
""".replace("\n", "\n    ")
LOOPS = pytest.mark.parametrize("loop", EVENT_LOOPS.values(), ids=EVENT_LOOPS)


def program(id: str, runtime: Path, rootfs: Path, root: Path, loop: tuple[str, dict[str, object]]) -> str:
    """The README's three lines, and what must be around them."""
    lines = next(block.code for block in blocks(ROOT / "README.md") if block.code.startswith("async with"))
    lines = lines.replace('"hello"', repr(id))
    backend, options = loop
    return "\n".join(
        [
            "import anyio",
            "from runc_async import *",
            f"runc = Runc({str(runtime)!r}, root={str(root)!r})",
            f"spec, rootfs = default_spec(['sleep', '60']), {str(rootfs)!r}",
            "async def main():",
            textwrap.indent(lines, "    "),
            f"anyio.run(main, backend={backend!r}, backend_options={options})",
        ]
    )


@LOOPS
def test_as_root(
    loop: tuple[str, dict[str, object]], runtime_path: Path, rootfs: Path, state_root: Path, new_id: Callable[[], str]
) -> None:
    needs_controllers("pids")  # `default_spec` limits processes by itself
    text = program(new_id(), runtime_path, rootfs, state_root, loop)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60 * SLOWNESS, cwd=ROOT)
    assert (done.stdout, done.stderr) == (f"{SAID}\n", "")


@LOOPS
def test_as_an_ordinary_user(
    loop: tuple[str, dict[str, object]],
    runtime_path: Path,
    runtime_name: str,
    rootfs: Path,
    new_id: Callable[[], str],
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
        home = Path(name)
        shutil.copytree(rootfs, home / "rootfs", symlinks=True)
        os.chown(home, USER, USER)
        text = program(new_id(), runtime_path, home / "rootfs", home / "state", loop)
        if runtime_name == "crun":  # see docs/howto/rootless.md
            text = text.replace("container.start()", f"container.start(){UNTIL_IT_RUNS}")
        done = run_as_ordinary_user(text, env={"XDG_RUNTIME_DIR": name, "TMPDIR": name, "HOME": name})
        assert (done.stdout, done.stderr) == (f"{SAID}\n", "")
        left = [path.name for path in (home / "state").iterdir() if not path.name.startswith(".")]
        assert left == []
