"""The environment of the runtime processes."""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["checked", "environment", "extra"]

# A supervisor's own, from systemd: never the container's by accident. A runtime given LISTEN_FDS would
# pass descriptors on that nobody named.
NOT_INHERITED = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_extra: ContextVar[Mapping[str, str] | None] = ContextVar("runc_async_extra_env", default=None)


def checked(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables, if they can be in an environment.

    :raises TypeError: a name or value is no str.
    :raises ValueError: a name or value that no environment can hold.
    """
    for name, value in cast("Mapping[object, object]", variables).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env: names and values must be str: {name!r}")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"env: not a possible variable: {name!r}")
    return dict(variables)


@contextlib.contextmanager
def extra(variables: Mapping[str, str]) -> Generator[None]:
    """Add variables in this task, and the tasks that it starts, as long as the block lasts."""
    token = _extra.set({**(_extra.get() or {}), **checked(variables)})
    try:
        yield
    finally:
        _extra.reset(token)


def environment(env: Mapping[str, str]) -> dict[str, str] | None:
    """The environment of a call that is made now: this process's, then `env`, then what `extra` adds.

    None where that is this process's own as it is, which then needs no copy: that was a tenth of a call's own time.
    """
    added = {**env, **(_extra.get() or {})}
    if not added and not any(name in os.environ for name in NOT_INHERITED):
        return None
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, **added}
