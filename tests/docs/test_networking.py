"""The network that the page on networking builds, under a name that is this test's alone."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import runc_async

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


async def test_a_container_with_an_address_of_its_own_reaches_the_host(
    runtime_path: Path,
    rootfs: Path,
    state_root: Path,
    new_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if shutil.which("ip") is None:
        pytest.skip("ip is missing: apt-get install iproute2")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/howto/networking.md"
    [code] = [block.code for block in all_blocks(page) if block.driver == "tests/docs/test_networking.py"]
    name = f"t{new_id()[-12:]}"
    for written, meant in (("job-net", name), ('"job"', repr(new_id())), ("/srv/rootfs", str(rootfs))):
        assert written in code
        code = code.replace(written, meant)
    octet = sum(name.encode()) % 256  # tests that run at once have networks of their own
    code = code.replace("10.77.0.", f"10.77.{octet}.")
    names: dict[str, Any] = {public: getattr(runc_async, public) for public in runc_async.__all__}
    names["runc"] = runc_async.Runc(runtime_path, root=state_root)
    with within(60):
        await execute(code, names)
    assert names["status"] == 0
    for left in (["ip", "netns"], ["ip", "-brief", "link"]):
        assert name not in subprocess.run(left, capture_output=True, text=True, check=True).stdout
