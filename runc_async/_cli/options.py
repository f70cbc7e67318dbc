"""The keywords of the commands, typed: each is the runtime's own flag, dashes as underscores.

`commands.py` has the same names and how each value is written; a test keeps the two equal. What each flag does is
said in ``runc(8)``, ``crun(1)`` and the pages of their commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence  # noqa: TC003 (read by documentation tools)
from typing import Any, TypedDict

StrPath = str | os.PathLike[str]


def pick(options: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the keywords of a class of options that were given.

    A method writes its keywords out, so that an editor and `help` show them, and calls this with ``locals()``.

    :param options: one of the classes below.
    :param values: a method's local variables.
    :returns: its keywords, without those that are None or False.
    """
    return {
        name: values[name] for name in options.__annotations__ if values[name] is not None and values[name] is not False
    }


class StartOptions(TypedDict, total=False):
    """What `Runc.create`, `Runc.run` have in common (``runc-create(8)``, ``runc-run(8)``)."""

    console_socket: StrPath | None
    """Path of the socket that receives the terminal's master, or a `ConsoleSocket`."""
    pidfd_socket: StrPath | None
    """Path of the socket that receives the init's pidfd, or a `PidfdSocket`. runc 1.2 and newer."""
    pid_file: StrPath | None
    """Where to write the pid of the container's init."""
    no_pivot: bool
    """Do not use ``pivot_root(2)`` in the container: for a root file system in memory (ramfs)."""
    no_new_keyring: bool
    """Let the container keep the caller's session keyring (``session-keyring(7)``)."""
    no_subreaper: bool
    """Do not let the runtime adopt orphans of the container. For `Runc.run`; crun has it for ``create`` as well."""
    config: StrPath | None
    """crun: another name for ``config.json``."""


class RunOptions(StartOptions, total=False):
    """`Runc.run` (``runc-run(8)``)."""

    keep: bool
    """Do not delete the container after it has ended. runc 1.1, crun 1.15 and newer."""


class ExecOptions(TypedDict, total=False):
    """`Runc.exec` (``runc-exec(8)``). Those from `cwd` on go with a sequence of arguments only."""

    console_socket: StrPath | None
    """As for `StartOptions`; needs `tty` and ``detach``."""
    pidfd_socket: StrPath | None
    """As for `StartOptions`. runc 1.2 and newer."""
    pid_file: StrPath | None
    """Where to write the process's pid."""
    cgroup: str | Sequence[str] | None
    """Sub-cgroup for the process, ``[controller,…:]path``."""
    ignore_paused: bool
    """Start it in a paused container too, where it waits. runc only."""
    cwd: StrPath | None
    """Its working directory in the container."""
    env: Mapping[str, str] | Sequence[str] | None
    """Variables in addition to the container's: a mapping, or ``NAME=value`` strings."""
    tty: bool
    """Give it a terminal."""
    user: str | int | None
    """``uid`` or ``uid:gid``, in numbers."""
    additional_gids: Sequence[int] | None
    """Further groups, in numbers. runc only."""
    process_label: str | None
    """Its SELinux label."""
    apparmor: str | None
    """Its AppArmor profile."""
    no_new_privs: bool
    """Forbid it to gain privileges by executing a file (``PR_SET_NO_NEW_PRIVS``)."""
    cap: str | Sequence[str] | None
    """Capabilities to add, such as ``CAP_NET_ADMIN``."""


class UpdateOptions(TypedDict, total=False):
    """`Runc.update` (``runc-update(8)``).

    Sizes are bytes, or have a unit (``"256M"``, powers of 1024); -1 means no limit. Times are microseconds.
    """

    blkio_weight: int | None
    """Relative weight of block I/O, 10 to 1000."""
    cpu_period: int | None
    """Length of a period, in microseconds."""
    cpu_quota: int | None
    """CPU time in each period, in microseconds; -1 means no limit."""
    cpu_burst: int | None
    """Unused time that may be saved up, in microseconds. runc 1.2 and newer."""
    cpu_share: int | None
    """Relative weight against other cgroups; 1024 is usual."""
    cpu_rt_period: int | None
    """Length of a period of real-time processes, in microseconds (cgroup v1)."""
    cpu_rt_runtime: int | None
    """CPU time of real-time processes in each period, in microseconds (cgroup v1)."""
    cpuset_cpus: str | None
    """CPUs that it may use: ``0-3,7``."""
    cpuset_mems: str | None
    """Memory nodes that it may use: ``0-1``."""
    cpu_idle: int | None
    """1: only when nothing else runs (``SCHED_IDLE``); 0: as usual. runc 1.2 and newer."""
    kernel_memory: int | str | None
    """Kernel memory, in bytes. crun; ignored by runc, and by newer kernels."""
    kernel_memory_tcp: int | str | None
    """TCP buffers, in bytes. crun; ignored by runc."""
    memory: int | str | None
    """Memory, in bytes."""
    memory_reservation: int | str | None
    """Memory that it may keep when memory is short, in bytes."""
    memory_swap: int | str | None
    """Memory and swap together, in bytes."""
    pids_limit: int | None
    """Processes and threads; -1 means no limit."""
    l3_cache_schema: str | None
    """Intel RDT: L3 cache, as in ``resctrl``: ``L3:0=f``."""
    mem_bw_schema: str | None
    """Intel RDT: memory bandwidth, as in ``resctrl``: ``MB:0=20``."""


class CriuOptions(TypedDict, total=False):
    """What `Runc.checkpoint` and `Runc.restore` have in common."""

    work_path: StrPath | None
    """Where CRIU keeps its log and its work files."""
    tcp_established: bool
    """Allow established TCP connections."""
    ext_unix_sk: bool
    """Allow Unix sockets whose other end is outside."""
    shell_job: bool
    """Allow a process that is part of a shell's job."""
    lazy_pages: bool
    """Send memory when it is asked for, after the restore (``userfaultfd(2)``). runc only."""
    file_locks: bool
    """Allow file locks."""
    manage_cgroups_mode: str | None
    """``soft``, ``full``, ``strict`` or ``ignore``."""
    empty_ns: str | Sequence[str] | None
    """Namespaces to create, but not to fill: ``network``."""
    auto_dedup: bool
    """Remove pages from parent images that a newer image has. runc only."""
    network_lock: str | None
    """``iptables``, ``nftables`` or ``skip``. crun 1.19 and newer."""


class CheckpointOptions(CriuOptions, total=False):
    """`Runc.checkpoint` (``runc-checkpoint(8)``)."""

    parent_path: StrPath | None
    """Of an earlier pre-dump, relative to the image path."""
    leave_running: bool
    """Let the container run on afterwards."""
    tcp_skip_in_flight: bool
    """Leave out TCP connections that are not yet established. runc 1.3 and newer."""
    link_remap: bool
    """Allow files that were deleted while open. runc 1.3 and newer."""
    page_server: str | None
    """``ADDRESS:PORT`` of a page server."""
    pre_dump: bool
    """Write memory alone, and let the container run on; a later checkpoint then has less to write."""


class RestoreOptions(CriuOptions, total=False):
    """`Runc.restore` (``runc-restore(8)``)."""

    console_socket: StrPath | None
    """As for `StartOptions`."""
    pid_file: StrPath | None
    """As for `StartOptions`."""
    no_subreaper: bool
    """As for `StartOptions`. runc only."""
    no_pivot: bool
    """As for `StartOptions`. runc only."""
    tcp_close: bool
    """Restore TCP connections as closed ones. crun 1.23 and newer."""
    lsm_profile: str | None
    """``apparmor:NAME`` or ``selinux:LABEL``."""
    lsm_mount_context: str | None
    """SELinux context that replaces that of the container's mounts."""
