"""When a file was made (``statx(2)``), which `os.stat` does not tell before Python 3.15."""

from __future__ import annotations

import struct

from .libc import statx

__all__ = ["birth"]

AT_SYMLINK_NOFOLLOW = 0x100
STATX_BTIME = 0x800
BTIME = 0x50
"""Where in ``struct statx`` the time is: seconds as an int64, nanoseconds as a uint32."""


def birth(path: str) -> int:
    """When a file was made, in nanoseconds since the epoch; 0 if the file system does not say.

    :param path: the file; a symbolic link is not followed.
    :raises OSError: there is no such file.
    """
    result = statx(path, AT_SYMLINK_NOFOLLOW, STATX_BTIME)
    (mask,) = struct.unpack_from("I", result, 0)
    seconds, nanoseconds = struct.unpack_from("qI", result, BTIME)
    return seconds * 10**9 + nanoseconds if mask & STATX_BTIME else 0
