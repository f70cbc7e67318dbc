"""The descriptors of one call: private duplicates, and the number each gets in the child.

The child sees 0, 1, 2; then 3, 4, … for ``preserve_fds``; then what the runtime itself is to read or write
(log, process file, status descriptor) under the number that its command line names; last the executable's.
These numbers are chosen, without a gap, so that every other descriptor can be closed in the child. Only where
asyncio starts it (`_spawn.keeps_numbers`) all but 0, 1 and 2 keep the parent's numbers.

Every duplicate is made above all chosen numbers. So no source is ever another entry's target, no
order of dup2 matters, and nothing is ever put over a low number of the parent, which other tasks own.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._cli.validation import check_type
from .._linux.descriptors import number_of
from .._spawn import ChildMap, keeps_numbers

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .._linux.descriptors import Descriptor

__all__ = ["ChildFds"]

FIRST = 3
MOST_KEPT = 8
"""More than one call lets the child have besides ``preserve_fds``: log, files, a descriptor, the executable."""


class ChildFds:
    """Duplicates for as long as one call needs them; closed together, once.

    What the caller or another task does with the originals meanwhile cannot change what the child gets.

    :param preserve_fds: what arrives as 3, 4, …
    :raises TypeError: an entry is not a descriptor.
    :raises OSError: an entry is not open (``EBADF``), or no descriptor is free (``EMFILE``).
    """

    def __init__(self, preserve_fds: Sequence[Descriptor] = ()) -> None:
        check_type("preserve_fds", preserve_fds, Sequence, wanted="a sequence of descriptors")
        self._chosen = bool(preserve_fds) or not keeps_numbers()
        self._first_kept = FIRST + len(preserve_fds)
        self._base = self._first_kept + MOST_KEPT
        self._owned: list[int] = []
        self._kept: list[int] = []
        self._stdio: list[int] = []
        self._targets: tuple[int, ...] = ()
        try:
            self._targets = tuple(
                self.duplicate(entry, f"preserve_fds[{index}]") for index, entry in enumerate(preserve_fds)
            )
        except BaseException:
            self.close()
            raise

    def duplicate(self, descriptor: Descriptor, what: str = "a descriptor") -> int:
        """Duplicate a descriptor; the duplicate's number."""
        return self._own(_duplicate(number_of(descriptor, what), self._base, what))

    def adopt(self, fd: int) -> int:
        """Take over a descriptor, moving it out of the way of the preserved numbers; its number."""
        if fd >= self._base:
            return self._own(fd)
        try:
            return self._own(_duplicate(fd, self._base, "a descriptor"))
        finally:
            os.close(fd)

    def keep(self, fd: int) -> int:
        """Let the child have an owned descriptor; the number under which the child has it."""
        assert len(self._kept) < MOST_KEPT
        self._kept.append(fd)
        return self._number(fd)

    def path(self, fd: int) -> str:
        """The path by which the child reaches a descriptor that was given to `keep`."""
        return f"/proc/self/fd/{self._number(fd)}"

    def _number(self, fd: int) -> int:
        return self._first_kept + self._kept.index(fd) if self._chosen else fd

    def stdio(self, stdin: int, stdout: int, stderr: int) -> None:
        """Say which owned descriptors become 0, 1 and 2."""
        self._stdio = [stdin, stdout, stderr]

    def executable(self, fd: int) -> int:
        """Take over the executable's descriptor, which comes last; the number under which the child has it."""
        try:
            number = _duplicate(fd, max([self._base - 1, *self._kept, *self._stdio]) + 1, "the executable")
        finally:
            os.close(fd)
        return self.keep(self._own(number))

    def child_map(self) -> ChildMap:
        """What the child gets."""
        stdin, stdout, stderr = self._stdio
        if self._chosen:
            return ChildMap((stdin, stdout, stderr, *self._targets, *self._kept), None)
        return ChildMap((stdin, stdout, stderr), tuple(self._kept))

    def close(self, *but: int) -> None:
        """Close all that is owned, except these, which stay until the next close."""
        owned, self._owned = self._owned, list(but)
        for fd in owned:
            if fd not in but:
                os.close(fd)

    def _own(self, fd: int) -> int:
        self._owned.append(fd)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _duplicate(number: int, above: int, what: str) -> int:
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, above)
    except OSError as exc:
        if exc.errno == errno.EBADF:
            raise OSError(errno.EBADF, f"{what} is not open: {number}") from None
        if exc.errno == errno.EINVAL:  # `above` lies beyond the limit on descriptors
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        raise
