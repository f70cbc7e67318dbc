"""The keywords of the commands, typed: each is the runtime's own flag, dashes as underscores.

`_commands.py` holds the same names with what they turn into; a test keeps the two equal. What each flag does is
said in ``runc(8)``, ``crun(1)`` and the pages of their commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence  # noqa: TC003 (read by documentation tools)
from typing import TypedDict

StrPath = str | os.PathLike[str]


class StartOptions(TypedDict, total=False):
    """What `Runc.create`, `Runc.run` have in common (``runc-create(8)``, ``runc-run(8)``)."""

    console_socket: StrPath | None
    """Path of the socket that receives the terminal's master, or a `ConsoleSocket`."""
    pidfd_socket: StrPath | None
    """Path of the socket that receives the init's pidfd, or a `PidfdSocket`. runc 1.2 and newer."""
    pid_file: StrPath | None
    """Where to write the pid of the container's init."""
    no_pivot: bool
    no_new_keyring: bool
    no_subreaper: bool
    """For `Runc.run`; crun takes it for ``create``, too."""
    config: StrPath | None
    """crun: another name for ``config.json``."""


class RunOptions(StartOptions, total=False):
    """`Runc.run` (``runc-run(8)``)."""

    keep: bool
    """Do not delete the container after it has ended. runc 1.1 and newer."""


class ExecOptions(TypedDict, total=False):
    """`Runc.exec` (``runc-exec(8)``). Those from `cwd` on go with a sequence of arguments only."""

    console_socket: StrPath | None
    pidfd_socket: StrPath | None
    pid_file: StrPath | None
    cgroup: str | Sequence[str] | None
    """Sub-cgroup for the process, ``[controller,…:]path``."""
    ignore_paused: bool
    cwd: StrPath | None
    env: Mapping[str, str] | Sequence[str] | None
    """Variables beside those of the container: a mapping, or ``NAME=value`` strings."""
    tty: bool
    user: str | int | None
    """``uid`` or ``uid:gid``, in numbers."""
    additional_gids: Sequence[int] | None
    process_label: str | None
    apparmor: str | None
    no_new_privs: bool
    cap: str | Sequence[str] | None
    """Capabilities to add, such as ``CAP_NET_ADMIN``."""


class UpdateOptions(TypedDict, total=False):
    """`Runc.update` (``runc-update(8)``).

    Sizes are bytes, or have a unit (``"256M"``, powers of 1024); -1 is no limit. Times are microseconds.
    """

    blkio_weight: int | None
    cpu_period: int | None
    cpu_quota: int | None
    cpu_burst: int | None
    cpu_share: int | None
    cpu_rt_period: int | None
    cpu_rt_runtime: int | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    cpu_idle: int | None
    kernel_memory: int | str | None
    kernel_memory_tcp: int | str | None
    memory: int | str | None
    memory_reservation: int | str | None
    memory_swap: int | str | None
    pids_limit: int | None
    l3_cache_schema: str | None
    mem_bw_schema: str | None


class CriuOptions(TypedDict, total=False):
    """What `Runc.checkpoint` and `Runc.restore` have in common."""

    work_path: StrPath | None
    """Where CRIU keeps its log and its work files."""
    tcp_established: bool
    ext_unix_sk: bool
    shell_job: bool
    lazy_pages: bool
    file_locks: bool
    manage_cgroups_mode: str | None
    """``soft``, ``full``, ``strict`` or ``ignore``."""
    empty_ns: str | Sequence[str] | None
    """Namespaces to create, but not to fill: ``network``."""
    auto_dedup: bool
    network_lock: str | None
    """crun: ``iptables``, ``nftables`` or ``skip``."""


class CheckpointOptions(CriuOptions, total=False):
    """`Runc.checkpoint` (``runc-checkpoint(8)``)."""

    parent_path: StrPath | None
    """Of an earlier pre-dump, relative to the image path."""
    leave_running: bool
    tcp_skip_in_flight: bool
    link_remap: bool
    page_server: str | None
    """``ADDRESS:PORT`` of a page server."""
    pre_dump: bool


class RestoreOptions(CriuOptions, total=False):
    """`Runc.restore` (``runc-restore(8)``)."""

    console_socket: StrPath | None
    pid_file: StrPath | None
    no_subreaper: bool
    no_pivot: bool
    tcp_close: bool
    """crun."""
    lsm_profile: str | None
    """``apparmor:NAME`` or ``selinux:LABEL``."""
    lsm_mount_context: str | None
