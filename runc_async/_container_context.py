"""The contexts of `Runc.container` and `Runc.attach`: a container from its creation to its removal."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from ._container import Container
from ._errors import ContainerNotRunningError
from ._eventloop.shield import at_checkpoints_only, shielded
from ._lifecycle import undo
from ._lifecycle.call import CREATE, StartCall
from ._lifecycle.remnants import identify
from ._lifecycle.start import launch
from ._linux.fd_reserve import with_room
from ._linux.pidfd import Pidfd
from ._orphans import ORPHANS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from ._container import AnyIO
    from ._lifecycle.remnants import Identity
    from ._lifecycle.runner import Runner

__all__ = ["attach", "create"]

logger = logging.getLogger("runc_async")


@contextlib.asynccontextmanager
@at_checkpoints_only
async def create(runner: Runner, call: StartCall, io: AnyIO) -> AsyncGenerator[Container[AnyIO]]:
    """Create a container; delete it on leaving. See `Runc.container`.

    :param io: the same as that of the call.
    """
    async with contextlib.AsyncExitStack() as stack:
        if io is not None:
            await stack.enter_async_context(io)
        pinned = runner.pin()
        stack.callback(pinned.release)
        with ORPHANS.call():
            container = await _create(pinned, call, io)
        async with _remove_at_exit(container):
            yield container


async def _create(runner: Runner, call: StartCall, io: AnyIO) -> Container[AnyIO]:
    init: Pidfd | None = None
    state: Identity | None = None
    cgroups: Mapping[str, tuple[int, int]] = {}
    is_created = False
    try:
        async with launch(runner, call) as launched:
            await launched.wait()
            # Nothing is awaited from here until the removal of the container is certain.
            is_created = True
            state = launched.state
            cgroups = launched.cgroups
            init = launched.open_started()
            if init is None:
                reason = f"the init of container {call.id} ended while it was being created"
                raise ContainerNotRunningError((CREATE.name, call.id), 0, reason)
            launched.tell_monitor()
            return Container(runner, call.id, init, io, state=state, cgroups=cgroups, config=launched.config)
    except BaseException:
        if is_created:
            await shielded(with_room, undo.remove, runner, call.id, init, state, cgroups)
            if init is not None:
                init.close()
        raise


@contextlib.asynccontextmanager
@at_checkpoints_only
async def attach(runner: Runner, id: str, *, delete: bool) -> AsyncGenerator[Container[None]]:
    """Take over a container that exists. See `Runc.attach`."""
    runner.monitor.runtime_starts()
    process = await _open_init(runner, id)
    pinned = runner.pin()
    container = Container(pinned, id, process, None, state=identify(runner.state_directory(id)))
    async with _remove_at_exit(container) if delete else _release_at_exit(container):
        yield container


async def _open_init(runner: Runner, id: str) -> Pidfd | None:
    pid = (await runner.state(id)).pid
    while pid > 0:
        try:
            process = Pidfd.open(pid)
        except ProcessLookupError:
            return None
        found, pid = pid, 0
        try:
            pid = (await runner.state(id)).pid
        finally:
            if pid != found:  # it had ended before it was opened, and its number may be another process's
                process.close()
        if pid == found:
            return process
    return None


@contextlib.asynccontextmanager
@at_checkpoints_only
async def _release_at_exit(container: Container[Any]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        container._release()


@contextlib.asynccontextmanager
@at_checkpoints_only
async def _remove_at_exit(container: Container[Any]) -> AsyncGenerator[None]:
    async with _release_at_exit(container):
        try:
            yield
        except BaseException as exc:
            try:
                await shielded(container._remove)
            except Exception as error:
                exc.add_note(f"container {container.id} may be left: {error}")
                logger.exception("container %s may be left", container.id)
            raise
        await shielded(container._remove)
