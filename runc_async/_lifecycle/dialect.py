"""Finds how the runtime of a client talks: once, by what it says of its version."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import anyio

from .._cli.commands import COMMANDS
from .._cli.dialects import RUNC, Dialect, find_dialect
from .._cli.quirks import LEAST_FSIZE
from .._errors import CommandError, ContainerExistsError, ContainerNotFoundError, UnsupportedError
from .._executor import identify_executable, is_sealed
from .._models import Version, parse_version

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._executor import Executor, Identity
    from .._process.capture import Outcome
    from .config import Config

__all__ = [
    "DialectFinder",
    "check_exact_id",
    "check_executor",
    "check_files",
    "check_free_id",
    "check_mounts",
    "check_rlimits",
]

logger = logging.getLogger("runc_async")

PATIENCE = 2.0
"""Seconds that a runtime gets to say its version; after that this call treats it as runc."""

_known: dict[Identity, Dialect] = {}
"""How the files talk that were asked before, by clients of this process."""


class DialectFinder:
    """How one client's runtime talks.

    :param found: the dialect, if the caller has named it; None asks the runtime when it is needed.
    """

    def __init__(self, found: Dialect | None) -> None:
        self.found = found

    async def find(self, executor: Executor, ask: Callable[[], Awaitable[Outcome]]) -> None:
        """Ask the runtime, unless this process has asked the same file before.

        :param ask: runs ``--version``.
        """
        identity = identify_executable(executor)
        if identity is not None and identity in _known:
            self.found = _known[identity]
        elif (version := await _ask_version(executor, ask)) is not None:
            self.learn(executor, version)

    def learn(self, executor: Executor, version: Version) -> None:
        """Know the dialect from what the runtime says of its version, if it is not known yet."""
        if self.found is not None:
            return
        self.found = find_dialect(version.runtime, version.version)
        if self.found is None:
            name = version.runtime or version.text.strip().partition("\n")[0] or "nothing"
            logger.warning("%r is treated as runc: its --version says %r", executor, name)
            self.found = RUNC
        identity = identify_executable(executor)
        if identity is not None:
            _known[identity] = self.found


async def _ask_version(executor: Executor, ask: Callable[[], Awaitable[Outcome]]) -> Version | None:
    """Ask the runtime for its version; None if it has not answered in time."""
    with anyio.move_on_after(PATIENCE):
        try:
            return parse_version((await ask()).stdout.decode(errors="replace"))
        except (CommandError, ValueError):
            return Version(runtime="", version="")
    logger.warning("%r is treated as runc: its --version has not ended within %s s", executor, PATIENCE)
    return None


def check_executor(dialect: Dialect, executor: Executor, command: str) -> None:
    """Refuse to start a container by an executor that the runtime cannot start itself anew from.

    :raises UnsupportedError: the executor is sealed, and the runtime needs a path.
    """
    if not dialect.executes_sealed and is_sealed(executor):
        reason = f"{dialect.name} {command} does not work from a sealed copy: use PathExecutor or FdExecutor"
        raise UnsupportedError((dialect.name, command), 1, reason)


def check_files(dialect: Dialect, id: str) -> None:
    """Refuse to look for a container's files on the host, where the runtime keeps them to itself.

    :raises UnsupportedError: the runtime has a file system of its own.
    """
    if not dialect.shows_files:
        reason = f"{dialect.name} does not show a container's files to the host: use a bind mount"
        raise UnsupportedError((dialect.name, "files", id), 1, reason)


def check_mounts(dialect: Dialect, command: str, config: Config) -> None:
    """Refuse a bundle with mounts that the runtime would leave out without an error.

    :raises UnsupportedError: there is such a mount.
    """
    if not dialect.ignored_mounts:
        return
    for destination, kind in config.mounts:
        if kind in dialect.ignored_mounts:
            reason = f"{dialect.name} cannot mount {destination}: it has no {kind}"
            raise UnsupportedError((dialect.name, command), 1, reason)


def check_rlimits(dialect: Dialect, command: str, config: Config) -> None:
    """Refuse a bundle with a limit that the runtime itself runs into.

    :raises UnsupportedError: there is such a limit.
    """
    least = LEAST_FSIZE.get(dialect.name, 0)
    if least and config.fsize is not None and config.fsize < least:
        reason = f"{dialect.name} needs an RLIMIT_FSIZE of at least {least} bytes, not {config.fsize}"
        raise UnsupportedError((dialect.name, command), 1, reason)


def check_exact_id(dialect: Dialect, command: str, words: Sequence[str], root: str | None) -> None:
    """Refuse an id that is only the beginning of a container's id, where the runtime would take it for the whole.

    :param words: what follows the command's flags.
    :param root: the directory of the runtime's state.
    :raises ContainerNotFoundError: there is no container of exactly this id.
    """
    table = COMMANDS.get(command)
    if dialect.finds_prefixes and root is not None and words and table is not None and table.arguments[0]:
        path = dialect.state_paths(root, words[0])[0]
        if not os.path.lexists(path):
            reason = f"container {words[0]} does not exist: there is no {path}"
            raise ContainerNotFoundError((dialect.name, command, *words), 1, reason)


def check_free_id(dialect: Dialect, command: str, id: str, root: str | None) -> None:
    """Refuse an id that is taken, where the runtime would refuse it, too, but forget the container that has it.

    :param root: the directory of the runtime's state.
    :raises ContainerExistsError: there is a container of this id.
    """
    if dialect.finds_prefixes and root is not None:
        path = dialect.state_paths(root, id)[0]
        if os.path.lexists(path):
            reason = f"container {id} exists already: there is {path}"
            raise ContainerExistsError((dialect.name, command, id), 1, reason)
