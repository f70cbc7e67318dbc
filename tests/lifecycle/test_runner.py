"""The road of a call: its log, what becomes of a failure, and processes given as words or objects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import BundleError, CommandError, Runc
from runc_async._cli.messages import parse_log
from runc_async._lifecycle.runner import process_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def test_a_process_is_words_or_an_object_and_never_one_string() -> None:
    assert process_object(["ls", "-l"]) == (["ls", "-l"], {})
    assert process_object({"args": ["ls"]}) == ((), {"process": b'{"args": ["ls"]}'})
    for wrong in ("ls -l", b"ls"):
        with pytest.raises(TypeError, match="not one string"):
            process_object(wrong)  # type: ignore[arg-type]


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


async def test_a_clean_up_that_fails_is_logged_and_the_cancellation_goes_on(
    fake_runtime: Callable[[str], Path],
    make_bundle: Callable[..., Path],
    container_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = 'case "$*" in *state*) exit 1;; *delete*) echo "cannot delete" >&2; exit 1;; *) exec sleep 60;; esac'
    runc = Runc(fake_runtime(script), cleanup_timeout=0.5)
    with caplog.at_level(logging.ERROR, logger="runc_async"), anyio.move_on_after(0.05) as scope:
        await runc.create(container_id, make_bundle("true"))
    assert scope.cancelled_caught
    assert f"create {container_id}: cancelled, and could not be cleaned up" in caplog.text
    assert "cannot delete" in caplog.text
