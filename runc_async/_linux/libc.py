"""The C library's functions that Python does not have, or not in every version: one binding, each by its name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

__all__ = [
    "file_system_user",
    "inotify_add_watch",
    "inotify_init1",
    "is_child_subreaper",
    "posix_spawn",
    "set_child_subreaper",
    "sigchld_is_ignored",
    "statx",
    "umount",
]

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37

SIG_IGN = 1
SA_NOCLDWAIT = 2
AT_FDCWD = -100
STATX_SIZE = 256
SETPGROUP = 0x02
SETSIGDEF = 0x04
OPAQUE = 1024
"""Bytes, more than any C library's ``posix_spawn_file_actions_t``, ``posix_spawnattr_t`` or ``sigset_t`` has."""
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)
"""Signals that a child starts with as the system has them. CPython ignores the first two (as `subprocess` says it,
``restore_signals``). A runtime that inherits an ignored SIGCHLD never learns how its own children end: crun hangs."""

# It keeps the interpreter's lock during a call, as `os.posix_spawn` does: another thread could change the environment
# while the child is given it.
libc = ctypes.PyDLL(None, use_errno=True)


def is_child_subreaper() -> bool:
    """Whether this process adopts orphans below it (``PR_GET_CHILD_SUBREAPER``, prctl(2))."""
    answer = ctypes.c_int()
    _check(libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0))
    return bool(answer.value)


def set_child_subreaper(adopt: bool) -> None:
    """Let this process adopt orphans below it, or not (``PR_SET_CHILD_SUBREAPER``, prctl(2))."""
    _check(libc.prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0))


class _Sigaction(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_char * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def sigchld_is_ignored() -> bool:
    """Whether the kernel reaps this process's children itself, and keeps no status of them (sigaction(2)).

    SIGCHLD is ignored, also by what has started this process, or is handled with ``SA_NOCLDWAIT``. `signal.getsignal`
    knows neither that flag nor what a C library has set.
    """
    action = _Sigaction()
    _check(libc.sigaction(signal.SIGCHLD, None, ctypes.byref(action)))
    return action.handler == SIG_IGN or bool(action.flags & SA_NOCLDWAIT)


@contextlib.contextmanager
def file_system_user(uid: int, gid: int) -> Generator[None]:
    """Reach files as another user, in this thread alone (setfsuid(2)). Nothing may be awaited in it."""
    group = libc.setfsgid(gid)
    user = libc.setfsuid(uid)
    try:
        yield
    finally:
        libc.setfsuid(user)
        libc.setfsgid(group)


def umount(point: bytes, flags: int) -> None:
    """Unmount what is mounted there (umount2(2)).

    :raises OSError: it cannot be unmounted.
    """
    _check(libc.umount2(point, flags), os.fsdecode(point))


def statx(path: str, flags: int, mask: int) -> bytes:
    """Read the ``struct statx`` of a file (statx(2)).

    :raises OSError: there is no such file.
    """
    result = ctypes.create_string_buffer(STATX_SIZE)
    _check(libc.statx(AT_FDCWD, os.fsencode(path), flags, mask, result), path)
    return result.raw


def inotify_init1(flags: int) -> int:
    """Make an inotify instance (inotify_init1(2)); its descriptor.

    :raises OSError: no descriptor or instance is free.
    """
    fd: int = libc.inotify_init1(flags)
    _check(fd < 0)
    return fd


def inotify_add_watch(fd: int, path: str, mask: int) -> None:
    """Watch a file or directory (inotify_add_watch(2)).

    :raises OSError: it cannot be watched.
    """
    _check(libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0, path)


def posix_spawn(
    path: str,
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    sources: Sequence[int],
    *,
    cwd: str | None = None,
    process_group: bool = False,
) -> int:
    """Start a child with these descriptors and no others (posix_spawn(3)).

    `os.posix_spawn` has no working directory, and not before Python 3.13 what closes all other descriptors.

    :param path: the file to execute, after the descriptors are in place and the directory is changed.
    :param env: its environment; None is this process's own.
    :param sources: this process's descriptors that become its 0, 1, 2, …; each at least as large as their number.
    :param cwd: its working directory; None is this process's own.
    :param process_group: whether it leads a process group of its own.
    :returns: its pid.
    :raises OSError: it cannot be started, or `path` cannot be executed.
    """
    with _file_actions() as actions:
        for target, source in enumerate(sources):
            _check_code(libc.posix_spawn_file_actions_adddup2(actions, source, target))
        _close_from(actions, len(sources))
        if cwd is not None:
            _check_code(libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd)))
        pid = ctypes.c_int()
        environment = ENVIRON if env is None else _strings(f"{name}={value}" for name, value in env.items())
        attributes = ATTRIBUTES[process_group]
        code = libc.posix_spawn(ctypes.byref(pid), os.fsencode(path), actions, attributes, _strings(argv), environment)
        _check_code(code, path)
        return pid.value


def _close_from(actions: Any, first: int) -> None:
    """Let the child close every descriptor from this number on.

    musl, and glibc before 2.34, cannot be told so; there the inheritable ones of this moment are closed one by one.
    """
    if ADDCLOSEFROM is not None:
        _check_code(ADDCLOSEFROM(actions, first))
        return
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            if int(name) >= first and os.get_inheritable(int(name)):
                _check_code(libc.posix_spawn_file_actions_addclose(actions, int(name)))


@contextlib.contextmanager
def _file_actions() -> Any:
    actions = ctypes.create_string_buffer(OPAQUE)
    _check_code(libc.posix_spawn_file_actions_init(actions))
    try:
        yield actions
    finally:
        libc.posix_spawn_file_actions_destroy(actions)


def _attributes(process_group: bool) -> Any:
    """What every child of one kind starts with. Only read by `posix_spawn`, and kept for ever."""
    attributes, signals = (ctypes.create_string_buffer(OPAQUE) for _ in range(2))
    _check_code(libc.posix_spawnattr_init(attributes))
    libc.sigemptyset(signals)
    for number in RESTORED:
        libc.sigaddset(signals, int(number))
    _check_code(libc.posix_spawnattr_setsigdefault(attributes, signals))
    _check_code(libc.posix_spawnattr_setpgroup(attributes, 0))
    flags = SETSIGDEF | SETPGROUP if process_group else SETSIGDEF
    _check_code(libc.posix_spawnattr_setflags(attributes, ctypes.c_short(flags)))
    return attributes


def _check(result: int | bool, path: str | None = None) -> None:
    """Raise what ``errno`` says."""
    if result:
        _check_code(ctypes.get_errno(), path)


def _check_code(code: int, path: str | None = None) -> None:
    """Raise what the result of a function of ``<spawn.h>`` says."""
    if code:
        raise OSError(code, os.strerror(code), path)


def _strings(words: Iterable[str]) -> Any:
    encoded = [os.fsencode(word) for word in words]
    if any(b"\0" in word for word in encoded):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


ENVIRON = ctypes.c_void_p.in_dll(libc, "environ")
ADDCLOSEFROM: Any = getattr(libc, "posix_spawn_file_actions_addclosefrom_np", None)
ATTRIBUTES = {group: _attributes(group) for group in (False, True)}
