"""A directory that another user may have prepared is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runc_async import Runc
from runc_async._linux.ownership import check_private

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others: run the suite as root")
STRANGER = 12345


def test_a_directory_of_this_user_and_one_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o711)
    check_private(str(tmp_path / "own"))
    check_private(str(tmp_path / "missing/state"))
    check_private("/")


def test_one_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    os.chown(tmp_path / "own", STRANGER, STRANGER)
    with pytest.raises(PermissionError, match=r"must not belong to another user.*uid 12345"):
        check_private(str(tmp_path / "own"))
    with pytest.raises(PermissionError, match="must not belong to another user"):
        check_private(str(tmp_path / "own/below"))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_one_that_others_may_write_to(tmp_path: Path, mode: int) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(mode)
    with pytest.raises(PermissionError, match="other users may write"):
        check_private(str(tmp_path / "own"))
    if mode == 0o1777:
        check_private(str(tmp_path / "own/below"))
    else:
        with pytest.raises(PermissionError, match="or above it"):
            check_private(str(tmp_path / "own/below"))


def test_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to("own")
    with pytest.raises(PermissionError, match="symbolic link"):
        check_private(str(tmp_path / "link"))
    check_private(str(tmp_path / "link/below"))
    os.chown(tmp_path / "link", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(PermissionError, match="symbolic link of another user"):
        check_private(str(tmp_path / "link/below"))


def test_a_link_to_a_link_of_another_user(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other/link").symlink_to("../own")
    (tmp_path / "link").symlink_to("other/link")
    check_private(str(tmp_path / "link/below"))
    os.chown(tmp_path / "other/link", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(PermissionError, match="symbolic link of another user"):
        check_private(str(tmp_path / "link/below"))
    os.chown(tmp_path / "other/link", 0, 0, follow_symlinks=False)
    os.chown(tmp_path / "other", STRANGER, STRANGER)
    with pytest.raises(PermissionError, match="must not belong to another user"):
        check_private(str(tmp_path / "link/below"))


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        check_private(str(tmp_path / "a/below"))


@pytest.mark.anyio
async def test_a_client_does_not_read_state_that_another_user_has_prepared(runtime_path: Path, tmp_path: Path) -> None:
    planted = tmp_path / "root"
    (planted / "x").mkdir(parents=True)
    ran = tmp_path / "ran"
    hook = f'{{"hooks": {{"poststop": [{{"path": "/bin/touch", "args": ["touch", "{ran}"]}}]}}}}'
    (planted / "x/state.json").write_text(f'{{"id": "x", "config": {hook}}}')
    os.chown(planted, STRANGER, STRANGER)
    runc = Runc(runtime_path, root=planted)
    for call in (runc.delete("x", force=True), runc.list(), runc.state("x")):
        with pytest.raises(PermissionError, match="must not belong to another user"):
            await call
    assert not ran.exists()
    assert (planted / "x/state.json").exists()


def test_one_that_was_checked_before_and_was_replaced(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    check_private(str(tmp_path / "own"))
    (tmp_path / "own").rename(tmp_path / "away")
    (tmp_path / "own").symlink_to("away")
    with pytest.raises(PermissionError, match="symbolic link"):
        check_private(str(tmp_path / "own"))
    (tmp_path / "own").unlink()
    (tmp_path / "away").rename(tmp_path / "own")
    check_private(str(tmp_path / "own"))
    os.chown(tmp_path / "own", STRANGER, STRANGER)
    with pytest.raises(PermissionError, match="must not belong"):
        check_private(str(tmp_path / "own"))
