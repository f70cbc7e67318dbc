"""``posix_spawn`` of the C library, for the one thing that `os.posix_spawn` lacks: a working directory."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SETPGROUP = 0x02
SETSIGDEF = 0x04
OPAQUE = 1024
"""Bytes, more than any C library's ``posix_spawn_file_actions_t``, ``posix_spawnattr_t`` or ``sigset_t`` has."""

libc = ctypes.CDLL(None)


def posix_spawn(
    cwd: str,
    path: str,
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    *,
    file_actions: Iterable[tuple[int, int, int]],
    setsigdef: Iterable[int],
    setpgroup: int | None = None,
) -> int:
    """As `os.posix_spawn` (of dup2 actions), with the child's working directory; the child's pid."""
    actions, attributes, signals = (ctypes.create_string_buffer(OPAQUE) for _ in range(3))
    _check(libc.posix_spawn_file_actions_init(actions))
    try:
        _check(libc.posix_spawnattr_init(attributes))
        try:
            for _, source, target in file_actions:
                _check(libc.posix_spawn_file_actions_adddup2(actions, source, target))
            _check(libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd)))
            libc.sigemptyset(signals)
            for number in setsigdef:
                libc.sigaddset(signals, int(number))
            _check(libc.posix_spawnattr_setsigdefault(attributes, signals))
            flags = SETSIGDEF
            if setpgroup is not None:
                _check(libc.posix_spawnattr_setpgroup(attributes, setpgroup))
                flags |= SETPGROUP
            _check(libc.posix_spawnattr_setflags(attributes, ctypes.c_short(flags)))
            pid = ctypes.c_int()
            environment = _strings(f"{name}={value}" for name, value in (os.environ if env is None else env).items())
            program = os.fsencode(path)
            _check(
                libc.posix_spawn(ctypes.byref(pid), program, actions, attributes, _strings(argv), environment),
                path,
            )
            return pid.value
        finally:
            libc.posix_spawnattr_destroy(attributes)
    finally:
        libc.posix_spawn_file_actions_destroy(actions)


def _check(code: int, path: str | None = None) -> None:
    if code:
        raise OSError(code, os.strerror(code), path)


def _strings(words: Iterable[str]) -> Any:
    encoded = [os.fsencode(word) for word in words]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)
