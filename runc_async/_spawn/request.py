"""What a child is to be, and the small interface that every way to start one implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ChildMap(NamedTuple):
    """Which of the parent's descriptors the child gets, and under which numbers. It gets no others."""

    numbered: tuple[int, ...]
    """Sources of 0, 1, 2, …: at least those three."""
    kept: tuple[int, ...] | None
    """Those that keep the parent's number; None if every number was chosen, so that they are all in `numbered`."""


@dataclass(frozen=True, slots=True)
class Request:
    """One child to start."""

    executable: str
    """The path to execute: absolute, or ``/proc/self/fd/N`` with N a descriptor of the child."""
    argv: Sequence[str]
    env: Mapping[str, str] | None
    """None is this process's own."""
    descriptors: ChildMap
    cwd: str | None = None
    process_group: bool = False
    """Whether the child leads a process group of its own."""


class Child(Protocol):
    """A started child. It must be waited for, once, by one task."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait(self) -> int | None:
        """Wait until it has ended and reap it.

        :returns: the exit status, ``-N`` when signal N ended it; None if that cannot be known.
        """
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has been reaped."""
        ...
