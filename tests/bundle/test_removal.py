"""Trees as a container can leave them are removed, to the last file, and nothing beside them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from runc_async._bundle.removal import remove_tree

from .._ordinary import run_as_ordinary_user

if TYPE_CHECKING:
    import pytest


def make_deep(folder: Path, depth: int) -> None:
    """Directories in one another, deeper than any path can name."""
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for level in range(depth):
        os.mkdir("d" * 20, dir_fd=here)
        file = os.open(f"f{level}", os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.close(file)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    make_deep(tmp_path / "deep", 3000)
    descriptors = set(os.listdir("/proc/self/fd"))
    remove_tree(tmp_path / "deep")
    assert not (tmp_path / "deep").exists()
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "folder").mkdir(parents=True)
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/to-folder").symlink_to(kept)
    (tree / "to-file").symlink_to(kept / "file")
    os.link(kept / "file", tree / "hard")
    os.mkfifo(tree / "pipe")
    remove_tree(tree)
    assert sorted(os.listdir(tmp_path)) == ["kept", "scratch", "state"]
    assert sorted(os.listdir(kept)) == ["file", "folder"]


def test_a_link_in_the_place_of_the_tree_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (tmp_path / "tree").symlink_to(kept)
    with caplog.at_level(logging.WARNING, "runc_async"):
        remove_tree(tmp_path / "tree")
    assert "tree could not be removed" in caplog.text
    assert os.listdir(kept) == ["file"]


def test_another_file_system_is_not_entered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mounted = tmp_path / "tree/a/mounted"
    mounted.mkdir(parents=True)
    (tmp_path / "tree/b").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other", mounted], check=True)
    try:
        (mounted / "file").write_text("x")
        with caplog.at_level(logging.WARNING, "runc_async"):
            remove_tree(tmp_path / "tree")
        assert (mounted / "file").read_text() == "x"
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert "is on another file system" in caplog.text
    assert os.listdir(tmp_path / "tree") == ["a"]


def test_what_is_missing_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remove_tree(tmp_path / "missing/too")
    assert caplog.text == ""


REMOVE = """
import os, sys
from pathlib import Path
from runc_async._bundle.removal import remove_tree

tree = Path(sys.argv[1], "tree")
(tree / "closed/below/still").mkdir(parents=True)
(tree / "closed/below/file").touch()
(tree / "read-only").mkdir()
(tree / "read-only/file").touch()
(tree / "closed/below").chmod(0)
(tree / "closed").chmod(0)
(tree / "read-only").chmod(0o500)
remove_tree(tree)
print(os.listdir(sys.argv[1]))
"""


def test_an_ordinary_user_removes_what_it_may_not_enter_or_write(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp", f"runc-async-test-{os.getpid()}")  # where others may go, too
    folder.mkdir(mode=0o777)
    try:
        folder.chmod(0o777)
        done = run_as_ordinary_user(REMOVE, folder)
        assert (done.stdout, done.stderr) == ("[]\n", "")
    finally:
        shutil.rmtree(folder)
