"""Programs run as an ordinary user, whose Python may lie where only root may go: it is loaded first."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ._slowness import SLOWNESS

USER = 54321
BECOME = f"""
import importlib, os, pkgutil, sys
import anyio, runc_async, uvloop

for module in pkgutil.walk_packages(runc_async.__path__, "runc_async."):
    if not module.name.startswith(("runc_async.__main__", "runc_async.contrib")):
        importlib.import_module(module.name)
for name in ("asyncio", "trio"):
    importlib.import_module(f"anyio._backends._{{name}}")
"".encode("unicode_escape")
os.setgroups([])
os.setgid({USER})
os.setuid({USER})
"""


def run_as_ordinary_user(
    program: str, *arguments: str | Path, before: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a program in Python prints, run by a user who is not root and has no rights.

    :param before: statements run before that, as root: further imports.
    """
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user: run the suite as root")
    return subprocess.run(
        [sys.executable, "-c", f"{before}\n{BECOME}{textwrap.dedent(program)}", *arguments],
        capture_output=True, text=True, timeout=60 * SLOWNESS, check=False,
        cwd=Path(__file__).parents[1], env={**os.environ, **(env or {})},
    )  # fmt: skip
