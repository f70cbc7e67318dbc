"""Mounts: parsed as the kernel writes them, and unmounted."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runc_async._linux.mounts import parse_mountinfo, read_mountinfo, unmount

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount: run the suite as root")


def test_a_line_is_parsed_with_and_without_optional_fields_and_escapes_are_resolved() -> None:
    v1, v2 = parse_mountinfo(
        rb"""35 31 0:32 /my\040group /sys/fs/cgroup/a\134b\012c rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct
41 31 259:38 / /sys/fs/cgroup rw - cgroup2 my\040source rw,nsdelegate
"""
    )
    assert (v1.root, v1.point, v1.kind) == ("/my group", "/sys/fs/cgroup/a\\b\nc", "cgroup")
    assert v1.device == os.makedev(0, 32)
    assert v1.options == ("rw", "cpu", "cpuacct")
    assert (v2.root, v2.point, v2.kind, v2.device) == ("/", "/sys/fs/cgroup", "cgroup2", os.makedev(259, 38))
    assert v2.options == ("rw", "nsdelegate")


def test_proc_is_among_this_processs_mounts() -> None:
    found = [mount for mount in read_mountinfo() if mount.point == "/proc"]
    assert found[-1].kind == "proc"
    assert found[-1].device == os.stat("/proc").st_dev
    assert read_mountinfo(os.getpid()) == read_mountinfo()


@needs_root
def test_a_mount_is_unmounted_with_what_is_below_and_while_it_is_in_use(tmp_path: Path) -> None:
    point = tmp_path / "with a blank\tand a tab"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    below = point / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    points = {mount.point for mount in read_mountinfo()}
    assert {str(point), str(below)} <= points
    with (below / "open").open("w"):
        unmount(str(point))
    assert not [mount for mount in read_mountinfo() if mount.point.startswith(str(tmp_path))]
    assert list(point.iterdir()) == []


@needs_root
def test_what_is_not_mounted_cannot_be_unmounted_and_a_link_is_not_followed(tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with pytest.raises(OSError, match="point"):
        unmount(str(point))
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    link = tmp_path / "link"
    link.symlink_to(point)
    with pytest.raises(OSError, match="link"):
        unmount(str(link))
    assert os.path.ismount(point)
    unmount(os.fsencode(point))
