"""Creates containers with several values of ``cgroupsPath``; prints where they were expected, and where they are.

Run as a program, since it goes to other cgroups than the tests': ``RUNTIME NAME ID ROOTFS WHERE``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runc_async._linux.cgroup_paths import container_cgroups
from runc_async._linux.cgroups import cgroups_of, hierarchies

from .._ordinary import USER
from ..conftest import minimal_spec

CLONE_NEWCGROUP = 0x02000000


def enter(name: str, owner: int | None) -> list[str]:
    """Go to a new cgroup in every hierarchy; of v2 to one within it, so that there may be others beside that."""
    made = []
    for controllers, above in cgroups_of().items():
        folder = Path(above, name) if controllers else Path("/sys/fs/cgroup" if is_unified() else above, name)
        folder.mkdir()
        made.append(str(folder))
        for file in ("cpuset.cpus", "cpuset.mems"):
            if "cpuset" in controllers:
                (folder / file).write_text((folder.parent / file).read_text())
        if not controllers:
            folder = folder / "main"
            folder.mkdir()
            made.append(str(folder))
        if owner is not None:
            for path in (*made[-2:], *(f"{at}/cgroup.procs" for at in made[-2:])):
                os.chown(path, owner, owner)
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    return made


def is_unified() -> bool:
    return any(hierarchy.version == 2 and hierarchy.point == "/sys/fs/cgroup" for hierarchy in hierarchies())


def paths(id: str, runtime: str, where: str) -> list[str | None]:
    """Values of ``cgroupsPath``: absolute, relative, and such as lead elsewhere."""
    if where == "rootless":  # may be below the caller's own alone
        return [None, f"{id}-a/b"]
    if runtime == "crun":  # makes folders outside of all cgroups of a ``..``, and fails
        return [None, f"/{id}-a/b", f"{id}-a/b", f"./{id}-a", f"//{id}-a"]
    return [None, f"/{id}-a/b", f"{id}-a/b", f"../../{id}-a", f"/../{id}-a/../{id}-b", f"./{id}-a", f"//{id}-a"]


class Runtime:
    """Creates containers and deletes them."""

    def __init__(self, path: str, name: str, rootfs: str, state: str, rootless: bool) -> None:
        self.path, self.name, self.rootfs, self.state, self.rootless = path, name, rootfs, state, rootless

    def compare(self, id: str, cgroups_path: str | None) -> dict[str, Any]:
        """Where a container was expected, and where it is."""
        spec = minimal_spec(["true"], Path(self.rootfs))
        if cgroups_path is not None:
            spec["linux"]["cgroupsPath"] = cgroups_path
        if self.rootless:
            spec["linux"]["namespaces"].append({"type": "user"})
            for kind in ("uidMappings", "gidMappings"):
                spec["linux"][kind] = [{"containerID": 0, "hostID": USER, "size": 1}]
            spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "devpts"]
        bundle = tempfile.mkdtemp(prefix="bundle-", dir=self.state)
        Path(bundle, "config.json").write_text(json.dumps(spec))
        expected = container_cgroups(id, cgroups_path, self.name)
        before = [path for path in expected if os.path.exists(path)]
        pid_file = f"{bundle}/pid"
        with open(f"{bundle}/said", "w+") as said:
            call = [
                self.path,
                f"--root={self.state}/root",
                "create",
                f"--bundle={bundle}",
                f"--pid-file={pid_file}",
                id,
            ]
            status = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False).returncode
            said.seek(0)
            answer = said.read()
        found: dict[str, Any] = {"cgroupsPath": cgroups_path, "expected": expected, "before": before}
        if status:
            found["failure"] = answer
        else:
            found |= self.look_and_delete(id, expected, int(Path(pid_file).read_text()))
        for path in expected:
            remove(path, id)
        return found

    def look_and_delete(self, id: str, expected: list[str], pid: int) -> dict[str, list[str]]:
        """Which cgroups a container has, and which of the expected are there."""
        own = cgroups_of().values()
        found = {
            "actual": [path for path in cgroups_of(pid).values() if path not in own],
            "existing": [path for path in expected if os.path.exists(path)],
        }
        deletion = [self.path, f"--root={self.state}/root", "delete", "--force", id]
        subprocess.run(deletion, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return found


def remove(path: str, id: str) -> None:
    """Remove a cgroup, and the one above that was made for it."""
    for folder in (path, os.path.dirname(path)):
        deadline = time.monotonic() + 2
        if not os.path.basename(folder).startswith(id) or folder.endswith("-own"):
            continue
        while os.path.isdir(folder) and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def main(path: str, name: str, id: str, rootfs: str, where: str) -> None:
    made: list[str] = []
    home = cgroups_of()
    try:
        if where != "here":
            made = enter(f"{id}-own", USER if where == "rootless" else None)
        if where == "namespace" and ctypes.CDLL(None).unshare(CLONE_NEWCGROUP):
            sys.exit("unshare failed")
        with tempfile.TemporaryDirectory(prefix="placement-", dir="/var/tmp") as state:  # where another user may go
            if where == "rootless":
                os.chown(state, USER, USER)
                os.setgroups([])
                os.setresgid(USER, USER, 0)
                os.setresuid(USER, USER, 0)
            runtime = Runtime(path, name, rootfs, state, where == "rootless")
            print(json.dumps([runtime.compare(id, value) for value in paths(id, name, where)]))
    finally:
        if where == "rootless":
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
        for folder in home.values() if made else ():
            (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
        for folder in reversed(made):
            while os.path.isdir(folder):  # it stays busy for a moment
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
