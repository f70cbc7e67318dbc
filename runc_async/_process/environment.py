"""The environment of the runtime processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from .._cli.validation import check_type

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["check_variables", "environment", "extra"]

# A supervisor's own, from systemd: never the container's by accident. A runtime given LISTEN_FDS would
# pass descriptors on that nobody named.
NOT_INHERITED = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_extra: ContextVar[Mapping[object, Mapping[str, str]]] = ContextVar("runc_async_extra_env")
"""By client, for each task."""


def check_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Check that variables can be in an environment, and copy them.

    :raises TypeError: they are not a mapping, or a name or value is not a str.
    :raises ValueError: a name or value that no environment can hold.
    """
    check_type("env", variables, Mapping, wanted="a mapping of names to values")
    for name, value in cast("Mapping[object, object]", variables).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env: names and values must be str: {name!r}")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"env: not a possible variable: {name!r}")
    return dict(variables)


@contextlib.contextmanager
def extra(client: object, variables: Mapping[str, str]) -> Generator[None]:
    """Add variables to a client's calls, in this task and the tasks that it starts, as long as the block lasts."""
    clients = _extra.get({})
    token = _extra.set({**clients, client: {**clients.get(client, {}), **check_variables(variables)}})
    try:
        yield
    finally:
        _extra.reset(token)


def environment(client: object, env: Mapping[str, str]) -> dict[str, str] | None:
    """The environment of a call that is made now: this process's, then `env`, then what `extra` adds.

    None where that is this process's own as it is, which then needs no copy: that was a tenth of a call's own time.
    """
    added = {**env, **_extra.get({}).get(client, {})}
    if not added and not any(name in os.environ for name in NOT_INHERITED):
        return None
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, **added}
