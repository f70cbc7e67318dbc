"""What a container has used, from its cgroups, which outlive its processes until it is deleted."""

from __future__ import annotations

import os

__all__ = ["Usage"]

CGROUPS = "/sys/fs/cgroup"


class Usage:
    """The cgroups of a container.

    :param pid: its init, which must not have ended.
    """

    def __init__(self, pid: int) -> None:
        self._folders: dict[str, str] = {}
        with open(f"/proc/{pid}/cgroup") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                for controller in controllers.split(","):
                    mounted = os.path.join(CGROUPS, controllers)  # version 2 has no controllers here, and no folder
                    self._folders[controller] = f"{mounted.rstrip('/')}{path}"

    def cpu(self) -> float | None:
        """Seconds of CPU time."""
        nanoseconds = self._read("cpuacct", "cpuacct.usage")
        if nanoseconds is not None:
            return int(nanoseconds) / 1e9
        for line in (self._read("", "cpu.stat") or "").splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
        return None

    def memory(self) -> int | None:
        """The most bytes of memory."""
        most = self._read("memory", "memory.max_usage_in_bytes") or self._read("", "memory.peak")
        return None if most is None else int(most)

    def _read(self, controller: str, name: str) -> str | None:
        try:
            with open(os.path.join(self._folders[controller], name)) as file:
                return file.read()
        except (KeyError, OSError):
            return None
