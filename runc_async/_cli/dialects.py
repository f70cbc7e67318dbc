"""How each runtime talks, as data: its commands and flags, its forms of values, where it keeps its state.

runc and crun talk alike as far as this package is concerned, and refuse by themselves the few flags that they lack. The
other runtimes are told apart here, so that what they cannot do is refused before anything is started.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

__all__ = ["DIALECTS", "RUNC", "Dialect", "find_dialect"]

Render = Callable[[object], list[str]]
"""Makes the arguments for the value of a flag."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one runtime talks.

    :ivar name: the runtime's own name.
    :ivar flags: every command that it has, and its flags; None if it refuses others itself and does no harm.
    :ivar renders: flag to how its value is written, where that differs from the tables of `commands`.
    :ivar least_signal: the least number that its ``kill`` takes.
    :ivar greatest_signal: the greatest one.
    :ivar has_host_pids: whether ``ps`` and the pid file of ``exec`` have pids of the container's processes on the host.
        Else such a process has a pid inside, which ``--internal-pid-file`` gives and ``kill --pid`` takes; on the host
        there is only a process that waits for it.
    :ivar finds_prefixes: whether it takes the beginning of an id for the whole, and forgets a container when another
        one is to have its id: so a call has to look for the exact state first.
    :ivar failure_status: the status with which ``run`` ends when it could not start the program, though it has written
        the pid file; it has then logged an error. None if there is no such case.
    :ivar state_files: the names in its root of the files that keep one container's state, with ``{id}``; the first one
        exists as long as the container. None if the state is in a directory named by the id.
    :ivar shows_files: whether the host sees a container's files through its init, as `Container.files` needs.
    :ivar ignored_mounts: the types of mounts that it leaves out without an error.
    :ivar executes_sealed: whether it starts containers when it was itself executed from memory.
    :ivar default_root: the directory of its state without ``--root``, for the variables of an environment and a user.
    """

    name: str
    flags: Mapping[str, frozenset[str]] | None = None
    renders: Mapping[str, Render] = field(default_factory=dict[str, Render])
    least_signal: int = 0
    greatest_signal: int = 64
    has_host_pids: bool = True
    finds_prefixes: bool = False
    failure_status: int | None = None
    state_files: Sequence[str] | None = None
    shows_files: bool = True
    ignored_mounts: frozenset[str] = frozenset()
    executes_sealed: bool = True
    default_root: Callable[[Mapping[str, str], int], str | None]

    def lacks(self, command: str, flag: str = "") -> str:
        """Say in a sentence that it has no such command or flag; empty if it has, or refuses it itself.

        :param command: the command's name.
        :param flag: with its dashes; empty for the command itself.
        """
        if self.flags is None or flag in self.flags.get(command, ()):
            return ""
        if command not in self.flags:
            return f"{self.name} has no command {command}"
        return f"{self.name} {command} has no flag {flag}" if flag else ""

    def state_paths(self, root: str, id: str) -> list[str]:
        """Where it keeps the state of a container: one directory, or several files.

        :param root: its ``--root``.
        :param id: the container's id.
        """
        return [os.path.join(root, name.format(id=id)) for name in self.state_files or ("{id}",)]


# -- forms of values ---------------------------------------------------------------------------------------


def _whole_seconds(flag: str) -> Render:
    """A duration as a whole number of seconds, at least one: runsc and youki take no fractions."""
    return lambda value: [f"{flag}={max(1, math.ceil(float(value)))}"]  # type: ignore[arg-type]


def _pass_descriptors(value: object) -> list[str]:
    """Descriptors 3, 4, … of the runtime become 3, 4, … of the process."""
    return [f"--pass-fd={number}:{number}" for number in range(3, 3 + int(value))]  # type: ignore[call-overload]


# -- roots -------------------------------------------------------------------------------------------------


def _run_directory(name: str) -> Callable[[Mapping[str, str], int], str | None]:
    """``/run/NAME`` for root, ``$XDG_RUNTIME_DIR/NAME`` for others; None if that variable is not set."""

    def find(environment: Mapping[str, str], uid: int) -> str | None:
        base = "/run" if uid == 0 else environment.get("XDG_RUNTIME_DIR")
        return f"{base}/{name}" if base else None

    return find


def _runsc_root(environment: Mapping[str, str], uid: int) -> str:
    return f"{environment.get('XDG_RUNTIME_DIR') or '/var/run'}/runsc"


# -- the runtimes ------------------------------------------------------------------------------------------

_RUNSC_START = "--bundle --console-socket --pid-file"
_RUNSC = {
    "create": _RUNSC_START,
    "delete": "--force",
    "events": "--interval --stats",
    "exec": "--additional-gids --cap --console-socket --cwd --detach --env --pid-file --process --user",
    "kill": "--all",
    "list": "--format --quiet",
    "pause": "",
    "ps": "--format",
    "resume": "",
    "run": f"{_RUNSC_START} --detach",
    "spec": "--bundle",
    "start": "",
    "state": "",
}
"""What gVisor has from 20221219 on, with the meaning that it has for runc. Its checkpoint and restore need a kernel and
a platform of their own, keep another format, and are left out."""
_RUNSC_PASS_FD = 20230320
"""The first release whose ``run`` and ``exec`` pass descriptors on."""

_YOUKI_START = "--bundle --console-socket --no-new-keyring --no-pivot --pid-file --preserve-fds"
_YOUKI = {
    "checkpoint": "--ext-unix-sk --file-locks --image-path --leave-running --link-remap --manage-cgroups-mode "
    "--shell-job --tcp-established --tcp-skip-in-flight --work-path",
    "create": _YOUKI_START,
    "delete": "--force",
    "events": "--interval --stats",
    "exec": "--additional-gids --apparmor --cap --cgroup --console-socket --cwd --detach --env --ignore-paused "
    "--no-new-privs --pid-file --preserve-fds --process --process-label --tty --user",
    "features": "",
    "kill": "--all",
    "list": "--format --quiet",
    "pause": "",
    "ps": "--format",
    "resume": "",
    "run": f"{_YOUKI_START} --detach --keep --no-subreaper",
    "spec": "--bundle --rootless",
    "start": "",
    "state": "",
    "update": "--blkio-weight --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-share --cpuset-cpus "
    "--cpuset-mems --l3-cache-schema --mem-bw-schema --memory --memory-reservation --memory-swap --pids-limit "
    "--resources",
}
"""What youki 0.6 has."""


def _flags(table: Mapping[str, str]) -> Mapping[str, frozenset[str]]:
    return MappingProxyType({command: frozenset(flags.split()) for command, flags in table.items()})


RUNC = Dialect(name="runc", default_root=_run_directory("runc"))
CRUN = Dialect(name="crun", default_root=_run_directory("crun"))
RUNSC = Dialect(
    name="runsc",
    flags=_flags(_RUNSC),
    renders=MappingProxyType({"--interval": _whole_seconds("--interval")}),
    least_signal=1,
    greatest_signal=31,
    has_host_pids=False,
    finds_prefixes=True,
    failure_status=128,
    state_files=("{id}_sandbox:{id}.lock", "{id}_sandbox:{id}.state"),
    shows_files=False,
    ignored_mounts=frozenset({"overlay"}),
    executes_sealed=False,
    default_root=_runsc_root,
)
YOUKI = Dialect(
    name="youki",
    flags=_flags(_YOUKI),
    renders=MappingProxyType({"--interval": _whole_seconds("--interval")}),
    default_root=_run_directory("youki"),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in (RUNC, CRUN, RUNSC, YOUKI)})
"""The runtimes that are told apart, by name."""
_SAME = {"sysbox-runc": RUNC}
"""Runtimes of another name that talk as one of these."""


def find_dialect(runtime: str, version: str = "") -> Dialect | None:
    """Find how a runtime talks.

    :param runtime: its own name.
    :param version: its version, as it says.
    :returns: None for a runtime that is not known.
    """
    found = DIALECTS.get(runtime) or _SAME.get(runtime)
    date = re.search(r"\d{8}", version)
    if found is RUNSC and date is not None and int(date[0]) >= _RUNSC_PASS_FD:
        return _with_descriptors(RUNSC)
    return found


def _with_descriptors(dialect: Dialect) -> Dialect:
    assert dialect.flags is not None
    further = {command: dialect.flags[command] | {"--preserve-fds"} for command in ("run", "exec")}
    renders = {**dialect.renders, "--preserve-fds": _pass_descriptors}
    return replace(dialect, flags={**dialect.flags, **further}, renders=renders)
