"""What the doctor finds out on real containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runc_async._doctor import trials
from runc_async._doctor.trials import CONTAINER, Limit, Trials

if TYPE_CHECKING:
    from pathlib import Path

    from runc_async._doctor.line import Line

pytestmark = pytest.mark.anyio


async def try_all(runtime: Path, folder: Path, *flags: str) -> dict[str, Line]:
    return {line.name: line for line in await Trials(folder, str(runtime), flags).run_all()}


async def test_global_flags_of_the_runtime_are_given_to_it(runtime_path: Path, tmp_path: Path) -> None:
    lines = await try_all(runtime_path, tmp_path, "--nosuch")
    assert lines[CONTAINER].state == "bad"
    assert "nosuch" in lines[CONTAINER].found
    assert "limit of memory" not in lines


async def test_a_limit_that_the_kernel_does_not_have_is_bad(
    runtime_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = Limit("limit of processes", {}, {"pids.max": "65"})
    refused = Limit("limit of memory", {"sysctl": {"net.nosuch": "1"}}, {})
    monkeypatch.setattr(trials, "LIMITS", (dropped, refused))
    lines = await try_all(runtime_path, tmp_path)
    assert lines["limit of processes"].state == "bad"
    assert "the container is not limited" in lines["limit of processes"].found
    assert lines["limit of memory"].state == "warning"
    assert lines["limit of memory"].found.startswith("refused: ")
    assert lines[CONTAINER].state != "bad"


async def test_criu_is_good_only_if_a_container_was_checkpointed(
    runtime_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    lines = await try_all(runtime_path, tmp_path)
    assert lines["CRIU"].state == "warning"
    assert lines["CRIU"].advice
