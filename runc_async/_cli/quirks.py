"""Facts about one runtime or one version, as data: the rest of the package looks them up here.

Sources: the change logs of runc and crun, their ``--help``, and what the tests record of each runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CRIU_ROOT",
    "DETACHED_HELPER",
    "GO_CRASH_STATUS",
    "HAVE_EXEC_CGROUP",
    "LEAST_FSIZE",
    "NOT_CONTAINERS",
    "OLDEST",
    "SINCE",
    "STARTING_NAMES",
    "STATE_FILES",
    "STUB",
    "VULNERABILITIES",
    "Release",
    "Vulnerability",
    "has",
    "known_vulnerabilities",
]

Release = tuple[int, ...]
"""The numbers that a version begins with: ``(1, 1, 5)``."""

OLDEST: Mapping[str, Release] = {"runc": (1, 1), "crun": (1, 8)}
"""The oldest version of each runtime that the tests run."""

GO_CRASH_STATUS = 2
"""The exit status of a Go program that its own language runtime ends, as a rule because it could start no thread."""

NOT_CONTAINERS = frozenset({".cache", ".empty-directory"})
"""What crun keeps in its root besides the containers: compiled filters, and a mount point."""

STATE_FILES = ("state.json", "status")
"""The file that describes a container in its state directory: runc's name, crun's name."""
CRIU_ROOT = "criu-root"
"""The directory in a state directory in which ``runc restore`` mounts the container's root file system."""

STARTING_NAMES = ("runc:[", "crun:[", "[libcrun:")
"""How the names of a runtime's own children begin that are on their way into a container."""
DETACHED_HELPER = "crun"
"""The name of a process that crun leaves when it detaches. Its session is one that crun's own child has led, so no
other code can have started it."""
STUB = "exe"
"""The name under which gVisor executes itself."""

HAVE_EXEC_CGROUP = frozenset({"runc", "crun"})
"""The runtimes that start a process of ``exec`` in a cgroup below the container's (``--cgroup``)."""
LEAST_FSIZE = {"crun": 1 << 16}
"""The least ``RLIMIT_FSIZE`` of a container, in bytes. crun sets the limit on itself, and then writes a filter of
system calls into its root. If the file is cut, this container ends with status 1 and no word, and so do later ones."""

# -- which version has which command and flag --------------------------------------------------------------

_RUNC: Mapping[str, Release] = {"runc": (1, 1)}
_RUNC_1_2: Mapping[str, Release] = {"runc": (1, 2)}
_CRUN: Mapping[str, Release] = {"crun": (1, 8)}

SINCE: Mapping[str, Mapping[str, Release]] = {
    "--cgroup-manager": _CRUN,
    "--criu": _RUNC,
    "--log-level": {"crun": (1, 17)},
    "checkpoint --auto-dedup": _RUNC,
    "checkpoint --empty-ns": _RUNC,
    "checkpoint --lazy-pages": _RUNC,
    "checkpoint --link-remap": {"runc": (1, 3)},
    "checkpoint --network-lock": {"crun": (1, 19)},
    "checkpoint --page-server": _RUNC,
    "checkpoint --status-fd": _RUNC,
    "checkpoint --tcp-skip-in-flight": {"runc": (1, 3)},
    "create --config": _CRUN,
    "create --no-subreaper": _CRUN,
    "create --pidfd-socket": _RUNC_1_2,
    "delete --regex": _CRUN,
    "events": _RUNC,
    "exec --additional-gids": _RUNC,
    "exec --ignore-paused": _RUNC,
    "exec --pidfd-socket": _RUNC_1_2,
    "features": {"runc": (1, 1), "crun": (1, 8, 6)},
    "kill --regex": _CRUN,
    "mounts": {"crun": (1, 22)},
    "restore --auto-dedup": _RUNC,
    "restore --empty-ns": _RUNC,
    "restore --lazy-pages": _RUNC,
    "restore --lsm-mount-context": {"runc": (1, 1), "crun": (1, 18)},
    "restore --lsm-profile": {"runc": (1, 1), "crun": (1, 18)},
    "restore --network-lock": {"crun": (1, 19)},
    "restore --no-pivot": _RUNC,
    "restore --no-subreaper": _RUNC,
    "restore --tcp-close": {"crun": (1, 23)},
    "run --config": _CRUN,
    "run --keep": {"runc": (1, 1), "crun": (1, 15)},
    "run --pidfd-socket": _RUNC_1_2,
    "spec --file": _CRUN,
    "update --cpu-burst": _RUNC_1_2,
    "update --cpu-idle": _RUNC_1_2,
    "update --l3-cache-schema": {"runc": (1, 1), "crun": (1, 11)},
    "update --mem-bw-schema": {"runc": (1, 1), "crun": (1, 11)},
}
"""A command, a command's flag or a global flag → the first version of each runtime that has it.

A runtime that is not in the inner table never had it. What is not in the outer table, every version since `OLDEST` has.
"""

UNTIL: Mapping[str, Mapping[str, Release]] = {"--criu": {"runc": (1, 4)}}
"""The first version that has the flag no more."""


def has(runtime: str, release: Release, command: str, flag: str = "") -> bool:
    """Whether a version of a runtime has a command, or a flag of it.

    :param runtime: ``runc`` or ``crun``.
    :param release: the numbers of its version.
    :param command: the command's name; empty for a global flag.
    :param flag: with its dashes; empty for the command itself.
    """
    if command and flag and not has(runtime, release, command):
        return False
    what = f"{command} {flag}".strip()
    first = SINCE.get(what, OLDEST).get(runtime)
    last = UNTIL.get(what, {}).get(runtime)
    return first is not None and release >= first and (last is None or release < last)


# -- vulnerabilities ---------------------------------------------------------------------------------------


class Vulnerability(NamedTuple):
    """A hole in a runtime that its authors have published and closed.

    :ivar name: the CVE's number.
    :ivar fixed: the first fixed version of each branch that was repaired, the oldest first. Later branches are
        good from the start, earlier ones were not repaired.
    :ivar what: one sentence: what a container, an image or a user could do.
    """

    name: str
    fixed: tuple[Release, ...]
    what: str

    def concerns(self, release: Release) -> bool:
        """Whether a version has this hole, if nobody has repaired it without a new version number."""
        if release >= self.fixed[-1]:
            return False
        return not any(release[:2] == fix[:2] and release >= fix for fix in self.fixed)


VULNERABILITIES: Mapping[str, tuple[Vulnerability, ...]] = {
    "runc": (
        Vulnerability("CVE-2019-5736", ((1, 0),), "a container overwrites the runtime's binary on the host"),
        Vulnerability("CVE-2019-16884", ((1, 0),), "an image with a volume over /proc defeats AppArmor"),
        Vulnerability("CVE-2021-30465", ((1, 0),), "a race of mounts with a symbolic link mounts host files"),
        Vulnerability("CVE-2021-43784", ((1, 0, 3),), "a crafted config.json defeats its namespaces"),
        Vulnerability("CVE-2022-29162", ((1, 1, 2),), "exec --cap gives inheritable capabilities"),
        Vulnerability("CVE-2023-25809", ((1, 1, 5),), "a rootless container can write to the user's host cgroups"),
        Vulnerability(
            "CVE-2023-27561", ((1, 1, 5),), "an image with /proc as a link defeats AppArmor and masked paths"
        ),
        Vulnerability("CVE-2023-28642", ((1, 1, 5),), "an image with /proc as a link defeats AppArmor and SELinux"),
        Vulnerability("CVE-2024-21626", ((1, 1, 12),), "an image or a cwd of /proc/self/fd/N reaches the host's files"),
        Vulnerability(
            "CVE-2024-45310", ((1, 1, 14), (1, 2)), "two containers that share a volume create empty host files"
        ),
        Vulnerability(
            "CVE-2025-31133", ((1, 2, 8), (1, 3, 3), (1, 4)), "a race with masked paths makes host files writable"
        ),
        Vulnerability(
            "CVE-2025-52565", ((1, 2, 8), (1, 3, 3), (1, 4)), "a race with /dev/console makes host files writable"
        ),
        Vulnerability(
            "CVE-2025-52881", ((1, 2, 8), (1, 3, 3), (1, 4)), "a race redirects writes to /proc, past AppArmor too"
        ),
        Vulnerability(
            "CVE-2026-41579", ((1, 3, 6), (1, 4, 3), (1, 5)), "an image with /dev as a link changes host files"
        ),
    ),
    "crun": (
        Vulnerability("CVE-2019-18837", ((0, 10, 5),), "an image with a symbolic link reaches the host's files"),
        Vulnerability("CVE-2022-27650", ((1, 4, 4),), "exec gives inheritable capabilities"),
        Vulnerability("CVE-2025-24965", ((1, 20),), "with the krun handler an image can write to host files"),
        Vulnerability("CVE-2026-30892", ((1, 27),), "exec --user can run the process as another user"),
        Vulnerability("CVE-2026-47766", ((1, 28),), "an image with /dev as a link changes host files"),
    ),
}
"""Published holes by runtime. A distribution may have repaired its package without a new version number."""


def known_vulnerabilities(runtime: str, release: Release) -> tuple[Vulnerability, ...]:
    """The published holes of a version; none for a runtime that is not in the table.

    :param runtime: ``runc`` or ``crun``.
    :param release: the numbers of its version; a release candidate counts as the release.
    """
    return tuple(hole for hole in VULNERABILITIES.get(runtime, ()) if hole.concerns(release))
