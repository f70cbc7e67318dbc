"""Keyword → flag: one declarative table per runtime command.

One rule names every keyword: it is the runtime's own flag, dashes as underscores. The tables hold every flag
of runc 1.1 to 1.5 and of crun 1.8 to 1.28 (``runc(8)``, ``crun(1)`` and the pages of their commands); which version
has which flag is in `quirks`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .flags import (
    Command,
    Flag,
    duration,
    identifier,
    integer_between,
    make_command,
    one_of,
    path_argument,
    several,
    size,
    switch,
    true_false_auto,
    user,
    variable,
    with_value,
)
from .validation import INT64, UINT64, parse_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "FURTHER_COMMANDS", "GLOBAL", "STARTING"]

_BUNDLE = with_value("--bundle", path_argument)
_CONSOLE_SOCKET = with_value("--console-socket", path_argument)
_PIDFD_SOCKET = with_value("--pidfd-socket", path_argument)
_PID_FILE = with_value("--pid-file", path_argument)
_DETACH = switch("--detach")
_NO_SUBREAPER = switch("--no-subreaper")
_NO_PIVOT = switch("--no-pivot")
_FORMAT = with_value("--format", one_of("table", "json"))
_REGEX = switch("--regex")

_START = (
    _BUNDLE,
    _CONSOLE_SOCKET,
    _PIDFD_SOCKET,
    _PID_FILE,
    _NO_PIVOT,
    switch("--no-new-keyring"),
    with_value("--preserve-fds", integer_between(0)),
    _NO_SUBREAPER,
    with_value("--config", path_argument),
)
_CRIU = (
    with_value("--image-path", path_argument),
    with_value("--work-path", path_argument),
    switch("--tcp-established"),
    switch("--ext-unix-sk"),
    switch("--shell-job"),
    switch("--lazy-pages"),
    switch("--file-locks"),
    with_value("--manage-cgroups-mode"),
    several("--empty-ns"),
    switch("--auto-dedup"),
    Flag("--network-lock", parse_text, separate=True),
)
# What is part of an OCI process object: ignored beside a whole one.
_PROCESS = (
    with_value("--cwd", path_argument),
    several("--env", variable),
    switch("--tty"),
    with_value("--user", user),
    several("--additional-gids", identifier),
    with_value("--process-label"),
    with_value("--apparmor"),
    switch("--no-new-privs"),
    several("--cap"),
)
# What is part of an OCI linux.resources object, likewise.
_RESOURCES = (
    with_value("--blkio-weight", integer_between(10, 1000)),
    with_value("--cpu-period", integer_between(0, UINT64)),
    with_value("--cpu-quota", integer_between(-1, INT64)),
    with_value("--cpu-burst", integer_between(0, UINT64)),
    with_value("--cpu-share", integer_between(0, UINT64)),
    with_value("--cpu-rt-period", integer_between(0, UINT64)),
    with_value("--cpu-rt-runtime", integer_between(-1, INT64)),
    with_value("--cpuset-cpus"),
    with_value("--cpuset-mems"),
    with_value("--cpu-idle", integer_between(0, 1)),
    with_value("--kernel-memory", size),  # crun; runc hides and ignores it
    with_value("--kernel-memory-tcp", size),
    with_value("--memory", size),
    with_value("--memory-reservation", size),
    with_value("--memory-swap", size),
    with_value("--pids-limit", integer_between(-1, INT64)),
)


GLOBAL = make_command(
    "runtime",
    switch("--debug"),
    with_value("--log", path_argument),
    with_value("--log-format", one_of("text", "json")),
    with_value("--log-level", one_of("error", "warning", "debug")),
    with_value("--root", path_argument),
    with_value("--criu", path_argument),  # hidden and ignored since runc 1.2
    switch("--systemd-cgroup"),
    with_value("--cgroup-manager", one_of("cgroupfs", "systemd", "disabled")),
    with_value("--rootless", true_false_auto),
    arguments=(0, 0),
    ignores={"debug": ["log_level"], "systemd_cgroup": ["cgroup_manager"]},
)
"""The options before the command."""

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        command.name: command
        for command in (
            make_command(
                "checkpoint",
                *_CRIU,
                with_value("--parent-path", path_argument),
                switch("--leave-running"),
                switch("--tcp-skip-in-flight"),
                switch("--link-remap"),
                with_value("--status-fd", integer_between(0)),
                with_value("--page-server"),
                switch("--pre-dump"),
            ),
            make_command("create", *_START),
            make_command("delete", switch("--force"), _REGEX),
            make_command(
                "events", with_value("--interval", duration), switch("--stats"), ignores={"stats": ["interval"]}
            ),
            make_command(
                "exec",
                _CONSOLE_SOCKET,
                _PIDFD_SOCKET,
                _PID_FILE,
                _DETACH,
                with_value("--preserve-fds", integer_between(0)),
                several("--cgroup"),
                switch("--ignore-paused"),
                with_value("--process", path_argument),
                *_PROCESS,
                arguments=(1, None),
                ignores={"process": [flag.keyword for flag in _PROCESS]},
            ),
            make_command("features", arguments=(0, 0)),
            make_command("kill", switch("--all"), _REGEX, arguments=(1, 2), ignores={"regex": ["all"]}),
            make_command("list", _FORMAT, switch("--quiet"), arguments=(0, 0), ignores={"quiet": ["format"]}),
            make_command("pause"),
            make_command("ps", _FORMAT, arguments=(1, None)),
            make_command(
                "restore",
                *_CRIU,
                _BUNDLE,
                _CONSOLE_SOCKET,
                _PID_FILE,
                _DETACH,
                _NO_SUBREAPER,
                _NO_PIVOT,
                switch("--tcp-close"),
                with_value("--lsm-profile"),
                with_value("--lsm-mount-context"),
            ),
            make_command("resume"),
            make_command("run", *_START, _DETACH, switch("--keep")),
            make_command("spec", _BUNDLE, switch("--rootless"), with_value("--file", path_argument), arguments=(0, 0)),
            make_command("start"),
            make_command("state"),
            make_command(
                "update",
                with_value("--resources", path_argument),
                *_RESOURCES,
                with_value("--l3-cache-schema"),  # these two are not resources, and are heeded beside them
                with_value("--mem-bw-schema"),
                ignores={"resources": [flag.keyword for flag in _RESOURCES]},
            ),
        )
    }
)
"""The runtime's commands that have a method of their own, by name."""

FURTHER_COMMANDS: Mapping[str, Command] = MappingProxyType(
    {"mounts": make_command("mounts", arguments=(3, 3), id_at=1)}  # crun mounts add ID FILE
)
"""Commands without a method, for `call_line`."""

STARTING = frozenset({"create", "exec", "restore", "run"})
"""Commands that start a container or a process in one."""
