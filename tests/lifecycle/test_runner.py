"""Running a command: its log, and what becomes of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runc_async import BundleError, CommandError, Runc
from runc_async._cli.messages import parse_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_the_log_of_each_call_is_appended_to_the_users_file(
    runtime_path: Path, state_root: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    runc = Runc(runtime_path, root=state_root, log=log, log_format="json")
    for _ in range(2):
        with pytest.raises(CommandError):
            await runc.state("nosuch")
    before, *entries = parse_log(log.read_bytes())  # crun spreads one over several lines
    assert before.message == "before"
    assert len(entries) == 2
    assert all("nosuch" in entry.message or "not exist" in entry.message for entry in entries)


async def test_a_log_that_cannot_be_written_is_named_before_anything_is_started(
    fake_runtime: Callable[[str], Path], tmp_path: Path
) -> None:
    runc = Runc(fake_runtime(f"touch {tmp_path}/started"), log=tmp_path / "missing/log")
    with pytest.raises(FileNotFoundError, match="missing/log"):
        await runc.version()
    assert not (tmp_path / "started").exists()


async def test_a_bundle_without_a_config_is_a_bundle_error_that_names_it(
    runc: Runc, tmp_path: Path, container_id: str
) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        await runc.run(container_id, tmp_path)


async def test_what_is_to_be_kept_is_kept_whatever_its_status(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    """With status 2 the runtime itself may have ended, too: Go gives it when it ends a program."""
    for status in (0, 1, 2, 3):
        id = new_id()
        assert await runc.run(id, make_bundle("sh", "-c", f"exit {status}"), keep=True) == status
        assert (await runc.state(id)).status == "stopped"
        await runc.delete(id)
