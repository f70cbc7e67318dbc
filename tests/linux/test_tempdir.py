"""Where temporary files lie: nowhere that another user could make, read or swap them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runc_async._linux.tempdir import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory, which is not ``XDG_RUNTIME_DIR``."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def place() -> Path:
    """Where a private directory is made."""
    with private_directory() as path:
        return Path(path).parent


def test_is_private_and_gone_afterwards_with_all_that_is_in_it(scratch: Path) -> None:
    with private_directory() as path, private_directory() as other:
        assert path != other
        assert Path(path).parent == scratch
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        (Path(path) / "sub").mkdir()
        (Path(path) / "sub/file").touch()
    assert list(scratch.iterdir()) == []


def test_is_gone_after_an_error_too(scratch: Path) -> None:
    with pytest.raises(LookupError), private_directory():
        raise LookupError
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent", __file__])
def test_an_xdg_runtime_dir_that_is_none_is_passed_over(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert place() == temporary
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert place() == temporary


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_one_where_others_can_swap_what_is_made_is_passed_over(temporary: Path, scratch: Path, mode: int) -> None:
    scratch.chmod(mode)
    assert place() == temporary
    scratch.chmod(mode | stat.S_ISVTX)
    assert place() == scratch


def test_another_users_is_passed_over(temporary: Path, scratch: Path) -> None:
    os.chown(scratch, 54321, 54321)
    assert place() == temporary


def test_one_that_cannot_be_written_is_passed_over(temporary: Path, scratch: Path) -> None:
    for folder in (temporary, *temporary.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(temporary, 54321, 54321)
    os.chown(scratch, 54321, 54321)
    scratch.chmod(0o500)
    child = os.fork()
    if child == 0:
        os.setuid(54321)
        os._exit(0 if place() == temporary else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_temporary_directory_where_others_can_swap_it_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    temporary.chmod(0o777)
    with pytest.raises(PermissionError, match=f"other users can replace.*{temporary}"):
        place()
    assert list(temporary.iterdir()) == []


@pytest.fixture(autouse=True)
def writable_again(scratch: Path) -> Iterator[None]:
    """For the census."""
    yield
    os.chown(scratch, os.geteuid(), -1)
    scratch.chmod(0o755)


def test_a_file_system_in_memory_is_preferred_if_asked_for(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with private_directory(in_memory=True) as path:
        assert Path(path).parent == Path("/dev/shm")
    assert place() == temporary
