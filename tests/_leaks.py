"""What a test may leave behind: nothing. One census, taken before and after every test."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from runc_async._cli.quirks import NOT_CONTAINERS
from runc_async._linux import fd_reserve

from . import _reaper
from ._reaper import SESSION, descendants, end_all, session_cgroups
from ._slowness import SLOWNESS

CGROUPS = Path(_reaper.CGROUPS)


def remove_folders_in_place_of_cgroups() -> None:
    """Take away what crun leaves where a hierarchy that it knows of is not mounted: a folder, plain files in it."""
    if (CGROUPS / "cgroup.procs").exists():  # version 2: one hierarchy, and it is mounted
        return
    for place in CGROUPS.iterdir():
        if place.is_dir() and not place.is_symlink() and not place.is_mount():
            for folder in place.glob(f"*{SESSION}*"):
                shutil.rmtree(folder)


def open_descriptors() -> dict[int, str]:
    """This process's descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) in fd_reserve.held:  # for ever, and elsewhere after every use
            continue
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own descriptor
            continue
    return found


def mounts_below(folder: Path) -> set[str]:
    """Mount points below a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {point for line in lines if (point := line.split()[4]).startswith(f"{folder}/")}


@dataclass(frozen=True)
class Census:
    """What exists at one moment."""

    processes: dict[int, tuple[str, str]]
    cgroups: set[str]
    descriptors: dict[int, str]
    mounts: set[str]
    files: set[str]

    @classmethod
    def take(cls, *, scratch: Path, state_root: Path) -> Census:
        return cls(
            processes=descendants(),
            cgroups=session_cgroups(),
            descriptors=open_descriptors(),
            mounts=mounts_below(scratch.parent),
            files={
                str(path)
                for folder in (scratch, state_root)
                for path in folder.rglob("*")
                if path.relative_to(folder).parts[0] not in NOT_CONTAINERS
            },
        )

    def left_since(self, before: Census) -> dict[str, object]:
        """What is here now and was not then."""
        descriptors = {n: what for n, what in self.descriptors.items() if before.descriptors.get(n) != what}
        left = {
            "processes": {p: d for p, d in self.processes.items() if p not in before.processes},
            "cgroups": self.cgroups - before.cgroups,
            "descriptors": descriptors,
            "mounts": self.mounts - before.mounts,
            "files": self.files - before.files,
        }
        return {kind: things for kind, things in left.items() if things}


def assert_nothing_left(before: Census, *, scratch: Path, state_root: Path, patience: float = SLOWNESS) -> None:
    """Fail with a list of what is left, after giving the kernel a moment to finish exits under way."""
    deadline = time.monotonic() + patience
    while True:
        left = Census.take(scratch=scratch, state_root=state_root).left_since(before)
        if not left:
            return
        if time.monotonic() > deadline:
            # The next test starts afresh, but for descriptors: they do no harm, and somebody may close them yet.
            end_all(but=before.processes)
            for point in mounts_below(scratch.parent):
                subprocess.run(["umount", "--lazy", point], check=False)
            raise AssertionError(f"left behind: {left}")
        gc.collect()
        time.sleep(0.02)
