"""Moves a live container: it counts in memory, is checkpointed and deleted, another process restores it, it counts on.

    python examples/move.py

Once in one go, and once with a pre-dump, which writes most of the memory while the program still runs; for each it
prints how long the program stood still for the dump, as CRIU measured it. Needs root, runc or crun
(``$RUNC_ASYNC_RUNTIME``), CRIU 4 and a static busybox.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from runc_async import CommandError, Runc, UnsupportedError

CGROUPS: Any = {"manage_cgroups_mode": "ignore"}  # the runtime makes the container's cgroup anew
RUNTIME = os.environ.get("RUNC_ASYNC_RUNTIME", "runc")
# Both the number and 16 MiB of ballast are in the shell's memory alone; the file only shows the number.
PROGRAM = (
    "x=$(head -c 16777216 /dev/zero | tr '\\0' x); i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.02; done"
)
SPEC = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", PROGRAM], "env": ["PATH=/bin"], "cwd": "/"},
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ],
    # No network namespace of its own: CRIU would need iptables to lock it.
    "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts")]},
}


def make_bundle(folder: Path) -> Path:
    """A root file system of one static busybox, and a config.json."""
    busybox = shutil.which("busybox") or sys.exit("move: busybox is missing (apt-get install busybox-static)")
    for name in ("bin", "proc", "dev", "tmp"):
        (folder / "rootfs" / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "rootfs/bin/busybox")
    for applet in ("sh", "head", "tr", "sleep"):
        (folder / "rootfs/bin" / applet).symlink_to("busybox")
    (folder / "config.json").write_text(json.dumps(SPEC))
    return folder


async def count(runc: Runc, id: str, above: int = 0) -> int:
    """The program's number, when it has got beyond another."""
    pid = (await runc.state(id)).pid
    with anyio.fail_after(10):
        while True:
            try:
                number = int(Path(f"/proc/{pid}/root/tmp/n").read_text())
            except (FileNotFoundError, ValueError):
                number = 0
            if number > above:
                return number
            await anyio.sleep(0.01)


def frozen(image: Path) -> float:
    """Milliseconds that the program stood still: ``frozen_time`` of CRIU's stats-dump (criu/images/stats.proto)."""
    data = (image / "stats-dump").read_bytes()[12:]  # two magic numbers and a length

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value, at

    _, at = varint(1)  # the outer message has one field, the dump's
    fields: dict[int, int] = {}
    while at < len(data) and 2 not in fields:
        tag, at = varint(at)
        fields[tag >> 3], at = varint(at)
    return fields[2] / 1000


async def move(runc: Runc, id: str, bundle: Path, folder: Path, *, pre_dump: bool) -> None:
    """One move, with or without a pre-dump."""
    image, parent = folder / "image", folder / "parent"
    try:
        await runc.run(id, bundle, detach=True)
        await count(runc, id, above=5)
        if pre_dump:
            await runc.checkpoint(id, image_path=parent, pre_dump=True)
            await runc.checkpoint(id, image_path=image, parent_path="../parent", **CGROUPS)
        else:
            await runc.checkpoint(id, image_path=image, **CGROUPS)
        reached = int((await anyio.run_process([sys.executable, __file__, "restore", id, bundle, image])).stdout)
        after = await count(runc, id, above=reached)
        how = "with a pre-dump" if pre_dump else "in one go"
        print(f"moved {how}: restored at {reached}, counts on at {after}; it was frozen for {frozen(image):.1f} ms")
    finally:
        await runc.delete(id, force=True)


async def restore(id: str, bundle: str, image: str) -> None:
    """What the other process does."""
    runc = Runc(RUNTIME, root=Path(bundle).parent / "state")
    await runc.restore(id, bundle, image_path=image, detach=True, **CGROUPS)
    print(await count(runc, id))


async def main() -> None:
    """Both moves."""
    if os.geteuid() != 0 or shutil.which("criu") is None:
        sys.exit("move: needs root, and CRIU (package criu)")
    with tempfile.TemporaryDirectory() as name:
        runc = Runc(RUNTIME, root=Path(name) / "state")
        bundle = make_bundle(Path(name) / "bundle")
        for number, pre_dump in enumerate((False, True)):
            folder = Path(name) / str(number)
            folder.mkdir()
            if pre_dump:
                check = await anyio.run_process(["criu", "check", "--feature", "mem_dirty_track"], check=False)
                if check.returncode:
                    print("not moved with a pre-dump: this kernel tracks no memory (CONFIG_MEM_SOFT_DIRTY)")
                    continue
            try:
                await move(runc, f"move-{os.getpid()}-{number}", bundle, folder, pre_dump=pre_dump)
            except UnsupportedError as error:
                print(f"not moved: {error.message}")
            except CommandError as error:
                sys.exit(f"move: {error}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["restore"]:
        anyio.run(restore, sys.argv[2], sys.argv[3], sys.argv[4])
    else:
        anyio.run(main)
