"""Every block of Python in the documentation, and every example, passes both type checkers in strict mode."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import runc_async

from .test_blocks import PAGES, ROOT, all_blocks

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.11",
    "reportMissingTypeStubs": False,
    # Of other people's packages: distributed has types for some of its names only.
    "reportUnknownMemberType": False,
    # A block's names are those of a whole program here, which the block may leave unused, and later blocks may reuse.
    "reportUnusedVariable": False,
    "reportUnusedImport": False,
    "reportUnusedFunction": False,
    "reportRedeclaration": False,
}
MYPY = """\
[mypy]
strict = true
python_version = 3.11
allow_redefinition_new = true
local_partial_types = true
untyped_calls_exclude = distributed, dask
"""
GIVEN = {
    "runc": "runc_async.Runc",
    "bundle": "runc_async.Bundle",
    "spec": "runc_async.Spec",
    "rootfs": "pathlib.Path",
}
"""What the pages take for granted, besides the public names and anyio; see docs/index.md."""
FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)


def module(page: Path) -> str:
    """A page's blocks as one module, whose only function has them one after the other."""
    code = "\n".join(textwrap.indent(FUTURE.sub("", block.code), "    ") for block in all_blocks(page))
    nodes = list(ast.walk(ast.parse(f"async def page():\n{code}")))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module != "runc_async"]
    names -= {alias.name for node in imports for alias in node.names}  # other names that are the same, as in contrib
    public = sorted(names & set(runc_async.__all__))
    given = [(name, kind) for name, kind in GIVEN.items() if name in names]
    return "\n".join(
        [
            "from __future__ import annotations",
            "import collections.abc, pathlib",
            "import runc_async",
            f"async def page({', '.join(f'{name}: {kind}' for name, kind in given)}) -> None:",
            "    import anyio",
            *(f"    from runc_async import {name}" for name in public),
            code,
        ]
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a module for each page."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        if not list(all_blocks(page)):
            continue
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
        (folder / f"{name}.py").write_text(module(page))
    return folder


@pytest.fixture(scope="module", params=["the documentation", "the examples", "the sandbox"])
def folder(request: pytest.FixtureRequest, pages: Path) -> Path:
    """A directory of modules to check."""
    examples = ROOT / "examples"
    return {"the documentation": pages, "the examples": examples, "the sandbox": examples / "sandbox"}[request.param]


def found(*command: str | Path) -> str:
    """What a checker has found; empty if nothing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.timeout(320)
def test_mypy(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is missing: `make setup` installs it")
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    modules = sorted(folder.glob("*.py"))
    assert modules
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", ROOT / ".mypy_cache/docs"]
    assert found(*command, *modules) == ""


@pytest.mark.timeout(320)
def test_basedpyright(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("basedpyright", reason="basedpyright is missing: `make setup` installs it")
    config = tmp_path / "pyrightconfig.json"
    modules = [str(path) for path in sorted(folder.glob("*.py"))]
    config.write_text(json.dumps({**SETTINGS, "include": modules, "extraPaths": [str(ROOT), str(folder)]}))
    command = [sys.executable, "-m", "basedpyright", "--project", config, "--pythonpath", sys.executable]
    assert found(*command) == ""
