"""The program on the page about images, on an image that umoci makes of the tests' root file system."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import runc_async

from .._cgroups import needs_controllers
from .._slowness import within
from .test_blocks import ROOT, all_blocks
from .test_copied import execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def images(tmp_path: Path, rootfs: Path) -> Path:
    """A layout with an image named ``python``, whose ``python3`` calculates what the page asks it."""
    if shutil.which("umoci") is None:
        pytest.skip("umoci is missing: apt-get install umoci")
    layout = tmp_path / "images"

    def umoci(*words: str | Path) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True)

    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:python")
    umoci("unpack", "--image", f"{layout}:python", tmp_path / "work")
    shutil.copytree(rootfs, tmp_path / "work/rootfs", symlinks=True, dirs_exist_ok=True)
    python = tmp_path / "work/rootfs/bin/python3"
    python.write_text('#!/bin/sh\ntest "$2" = "print(6 * 7)" && echo $((6 * 7)) && test "$MADE_BY" = umoci\n')
    python.chmod(0o755)
    umoci("repack", "--image", f"{layout}:python", tmp_path / "work")
    umoci("config", "--image", f"{layout}:python", "--config.env", "MADE_BY=umoci", "--config.cmd", "python3")
    shutil.rmtree(tmp_path / "work")
    return layout


async def test_an_image_is_unpacked_and_runs(
    images: Path, runtime_path: Path, state_root: Path, new_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_controllers("memory", "pids")
    monkeypatch.chdir(images.parent)
    page = ROOT / "docs/howto/images.md"
    [code] = [block.code for block in all_blocks(page) if block.driver == "tests/docs/test_images.py"]
    names: dict[str, Any] = {public: getattr(runc_async, public) for public in runc_async.__all__}
    names["runc"] = runc_async.Runc(runtime_path, root=state_root)
    with within(60):
        await execute(code.replace('"job"', repr(new_id())), names)
    assert names["image"].args == ["python3"]
    assert names["image"].env["MADE_BY"] == "umoci"
