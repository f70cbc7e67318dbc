"""Builds the OCI process object of an ``exec``: at least as confined as the container's own process.

crun gives a process of ``exec`` none of the container's no-new-privileges, and both runtimes give a process object
just what it says. So what an object leaves out comes from the container's own process, and arguments become such an
object. It travels in a memory file, so that the values of variables are not on a command line that every user can read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._cli.command_line import command_line
from .._cli.validation import check_type, encode_document
from . import remnants
from .config import read_config

if TYPE_CHECKING:
    from .runner import Runner

__all__ = ["ExecArguments", "build_exec", "read_container_process"]

INHERITED = (
    "apparmorProfile",
    "capabilities",
    "ioPriority",
    "noNewPrivileges",
    "oomScoreAdj",
    "rlimits",
    "scheduler",
    "selinuxLabel",
)
"""What confines a process (``config.md``, Process)."""
ALSO_INHERITED = ("cwd", "env", "user")
"""What a process needs besides, where the caller's object leaves it out."""
REPLACED = ("env", "cwd", "tty", "user", "additional_gids", "process_label", "apparmor", "no_new_privs", "cap")
"""The keywords of ``exec`` that are part of a process object."""

IGNORED_FLAGS = {
    **{f"--{name.replace('_', '-')}": name for name in REPLACED},
    "-e": "env",
    "-t": "tty",
    "-u": "user",
    "-g": "additional_gids",
    "-c": "cap",
}
"""The flags that a runtime ignores beside a process object, and the keyword of each."""

ExecArguments = tuple[Sequence[str], Mapping[str, bytes], Mapping[str, Any]]
"""What follows the id, the content of files by keyword, and the options that are left."""


def build_exec(
    process: Mapping[str, Any] | Sequence[str],
    options: Mapping[str, Any],
    own: Mapping[str, Any],
    extra_args: Sequence[str] = (),
) -> ExecArguments:
    """Build what ``exec`` is given.

    :param process: the caller's OCI process object, or arguments.
    :param options: keywords of ``exec``.
    :param own: the container's own process object; empty if it is not known.
    :param extra_args: the caller's further flags.
    :raises TypeError: `process` is neither.
    :raises ValueError: `extra_args` has a flag that the runtime ignores beside a process object.
    """
    if isinstance(process, str | bytes):
        raise TypeError("process must be a sequence of arguments or an OCI process object, not one string")
    if isinstance(process, Mapping):
        inherited = {key: own[key] for key in (*INHERITED, *ALSO_INHERITED) if key in own}
        return (), {"process": encode_document({**inherited, **process})}, options
    check_type("process", process, Iterable, wanted="a sequence of arguments or an OCI process object")
    if not own or not process:
        return process, {}, options
    for word in extra_args:
        if (flag := word.partition("=")[0]) in IGNORED_FLAGS:
            raise ValueError(f"extra_args: {flag!r} must be given as {IGNORED_FLAGS[flag]}=")
    replaced = {name: value for name, value in options.items() if name in REPLACED and value is not None}
    command_line("exec", replaced, positional=["id", *process])  # the same checks as for the runtime's own flags
    rest = {name: value for name, value in options.items() if name not in REPLACED}
    return (), {"process": encode_document(_apply(process, replaced, own))}, rest


def _apply(args: Sequence[str], options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Change the container's own process as the options of ``exec`` say."""
    process = {**own, "args": list(args), "terminal": options.get("tty", False)}
    process.pop("consoleSize", None)
    process["env"] = [*own.get("env", ()), *_variables(options.get("env", ()))]
    process["user"] = _user(options, own.get("user", {}))
    for option, key in (("cwd", "cwd"), ("process_label", "selinuxLabel"), ("apparmor", "apparmorProfile")):
        if option in options:
            process[key] = os.fspath(options[option])
    if options.get("no_new_privs"):
        process["noNewPrivileges"] = True
    if "cap" in options:
        process["capabilities"] = _add_capabilities(options["cap"], own.get("capabilities", {}), process["user"])
    return process


def _variables(env: Mapping[str, str] | Sequence[str]) -> Sequence[str]:
    if isinstance(env, Mapping):
        return [f"{name}={value}" for name, value in env.items()]
    return [env] if isinstance(env, str) else env


def _user(options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    user: dict[str, Any] = {**own}
    if "user" in options:  # another user has none of the own user's further groups
        uid, _, gid = str(options["user"]).partition(":")
        user = {**own, "uid": int(uid), "additionalGids": []}
        user.pop("username", None)
        if gid:
            user["gid"] = int(gid)
    further = [int(gid) for gid in options.get("additional_gids", ())]
    if further:
        user["additionalGids"] = [*user.get("additionalGids", ()), *further]
    return user


def _add_capabilities(
    added: str | Sequence[str], own: Mapping[str, Sequence[str]], user: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Add capabilities: for a user who is not root also to the sets that survive an ``execve`` (capabilities(7))."""
    names = [added] if isinstance(added, str) else [*added]
    sets = ("bounding", "effective", "permitted", *(("inheritable", "ambient") if user.get("uid") else ()))
    capabilities = {name: [*values] for name, values in own.items()}
    for name in sets:
        capabilities[name] = [*dict.fromkeys([*capabilities.get(name, ()), *names])]
    return capabilities


def read_container_process(runner: Runner, id: str) -> Mapping[str, Any]:
    """Read the process object of a container from its bundle; empty if it cannot be found.

    Where the bundle is, the runtime's state file says, in a directory that belongs to the runtime's user.
    """
    directory = runner.state_directory(id)
    state = remnants.read_state_file(directory) if directory is not None else None
    if state is None or not state.bundle:
        return {}
    return read_config(state.bundle).process
