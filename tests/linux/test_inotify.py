"""Waiting for a file to be written, on every event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async._linux.inotify import DirectoryWatch

from .._slowness import within

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_wakes_when_a_file_is_written_or_moved_there(tmp_path: Path, scratch: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with DirectoryWatch(str(folder)) as watch:
        with anyio.move_on_after(0.02) as quiet:
            await anyio.wait_readable(watch)
        assert quiet.cancelled_caught
        watch.clear()
        (folder / "pid").write_text("5")
        with within(5):
            await anyio.wait_readable(watch)
        watch.clear()
        other = tmp_path / "other"
        other.write_text("6")
        other.rename(folder / "pid")
        with within(5):
            await anyio.wait_readable(watch)


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such"):
        DirectoryWatch("/no/such")
