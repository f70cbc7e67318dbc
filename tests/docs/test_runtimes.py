"""`docs/runtimes.md`: its table is the package's, and another program's containers can be attached to."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Bundle, Runc, default_spec

from .._cgroups import needs_controllers
from .test_blocks import ROOT, all_blocks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
PAGE = ROOT / "docs/runtimes.md"


def test_the_table_is_written_from_the_package() -> None:
    page = runpy.run_path(str(ROOT / "docs/write_runtimes.py"))["page"]()
    assert PAGE.read_text() == page, "run docs/write_runtimes.py"
    assert "| `checkpoint` | yes | yes | no | no | yes |" in page


async def test_a_container_of_another_program_can_be_attached_to(
    runtime_path: Path,
    state_root: Path,
    rootfs: Path,
    tmp_path: Path,
    container_id: str,
    capsys: pytest.CaptureFixture[str],
    runtime_name: str,
) -> None:
    if runtime_name == "crun":
        pytest.skip("crun has no command events, which gives the statistics: run with runc")
    needs_controllers("pids")
    (block,) = [block for block in all_blocks(PAGE) if block.driver]
    code = "async def attach():\n" + "".join(f"    {line}\n" for line in block.code.splitlines())
    names: dict[str, object] = {"runc": Runc(runtime_path, root=state_root)}
    exec(code.replace('"web"', f'"{container_id}"'), names)
    bundle = Bundle.create(tmp_path / "bundle", default_spec(["sleep", "2"]), rootfs=rootfs)
    async with Runc(runtime_path, root=state_root).container(container_id, bundle) as container:
        await container.start()
        with anyio.fail_after(60):
            await names["attach"]()  # type: ignore[operator]
    assert "inside" in capsys.readouterr().out
