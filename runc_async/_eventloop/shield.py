"""Work that no cancellation interrupts: starting a process, reaping it, taking a container down.

On trio a shielded cancel scope does this, but for Ctrl-C in the main task; a child task keeps that out.
On asyncio a task can also be cancelled natively (``Task.cancel``, ``asyncio.timeout``, the end of
``asyncio.run``), which no anyio scope holds back. A second task behind ``asyncio.shield`` does not help
there: the end of ``asyncio.run`` cancels that one, too. So the coroutine runs in the caller's own task, and
native cancellations that arrive meanwhile are kept and raised after it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import anyio

from .detect import in_trio

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Generator

T = TypeVar("T")
P = ParamSpec("P")


def at_checkpoints_only(function: Callable[P, T]) -> Callable[P, T]:
    """Let Ctrl-C on trio end this function, and what it calls, where it waits, and nowhere else. A decorator.

    In trio's main task it is raised between any two instructions otherwise: also where a container has been made
    and its removal is not yet certain. On asyncio Ctrl-C is a cancellation.

    :param function: whose calls are not ended elsewhere: an async function, or an async generator function.
    """
    protected = False

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        nonlocal protected
        if not protected and in_trio():
            import trio

            trio.lowlevel.enable_ki_protection(function)
            protected = True
        return function(*args, **keywords)

    return call


async def shielded(call: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **keywords: Any) -> T:
    """Await ``call(*args, **keywords)`` to its end, whatever cancellation arrives meanwhile.

    A native cancellation that arrived is raised afterwards (then an error of the call is its cause), one by a
    cancel scope at the next checkpoint, as after every shield.
    """
    if in_trio():
        return await _shielded_on_trio(call(*args, **keywords))
    result: list[T] = []
    with anyio.CancelScope(shield=True):
        result.append(await _Uninterrupted(call(*args, **keywords)))
    return result[0]


async def _shielded_on_trio(coroutine: Coroutine[Any, Any, T]) -> T:
    import outcome
    import trio

    result: list[outcome.Outcome[T]] = []

    @trio.lowlevel.enable_ki_protection
    async def run() -> None:
        with trio.CancelScope(shield=True):
            result.append(await outcome.acapture(_same, coroutine))

    interrupt: KeyboardInterrupt | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
    except* KeyboardInterrupt as group:
        interrupt = cast("KeyboardInterrupt", group.exceptions[0])
    if interrupt is not None:
        raise interrupt
    return result[0].unwrap()


async def _same(awaitable: Awaitable[T]) -> T:
    return await awaitable


class _Uninterrupted:
    """Drives a coroutine as an asyncio task does, but keeps native cancellations back until it has ended.

    Cancellations by anyio's scopes go through: the outer ones are held back by the shield around this, so
    they can only be those of a scope inside the coroutine. Such a scope takes a cancellation for its own only
    where the task counts no other (`Task.cancelling`); so what is kept back is not counted meanwhile.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._kept: asyncio.CancelledError | None = None
        self._count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._coroutine.send(None)
            except StopIteration as stop:
                result = stop.value
                break
            except BaseException as exc:
                error = exc
                break
            if waited_for is None:  # a bare yield: asyncio.sleep(0)
                waited_for = _next_turn(task.get_loop())
            yield from self._wait(task, waited_for)
        if self._kept is not None:
            yield from self._cancel(task, self._kept, error)
        if error is not None:
            raise error
        return result

    def _wait(self, task: asyncio.Task[Any], future: asyncio.Future[Any]) -> Generator[Any, Any, None]:
        """Wait until a future of the coroutine is done, and keep the native cancellations that arrive meanwhile."""
        import asyncio

        future._asyncio_future_blocking = False
        while not future.done():
            before = task.cancelling()
            try:
                yield from _ended(future)
            except asyncio.CancelledError as exc:
                # A scope's comes first or not at all; a native one that follows is folded into the same error.
                # One that came while the coroutine ran (Ctrl-C) is counted in `before`.
                by_scope = _by_a_scope(exc)
                for _ in range(max(task.cancelling() - before, 1) - by_scope):
                    self._kept = exc
                    self._count += 1
                    task.uncancel()
                if by_scope:
                    future.cancel(*exc.args)

    def _cancel(
        self, task: asyncio.Task[Any], kept: asyncio.CancelledError, cause: BaseException | None
    ) -> Generator[Any, Any, None]:
        """Cancel the task as often as it was cancelled meanwhile, and raise that here."""
        import asyncio

        try:
            for _ in range(self._count):
                task.cancel(*(() if _by_a_scope(kept) else kept.args))
            yield
        except asyncio.CancelledError as exc:
            raise exc from cause


def _by_a_scope(exc: asyncio.CancelledError) -> bool:
    return bool(exc.args) and isinstance(exc.args[0], str) and exc.args[0].startswith("Cancelled via cancel scope")


def _next_turn(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(done, turn)
    return turn


def done(future: asyncio.Future[None]) -> None:
    """Resolve a future, unless the task that waits for it was cancelled."""
    if not future.done():
        future.set_result(None)


def _ended(future: asyncio.Future[Any]) -> Generator[Any, Any, None]:
    """Wait until a future is done, leaving it alone when the waiter is cancelled."""
    waiter: asyncio.Future[None] = future.get_loop().create_future()

    def wake(_: asyncio.Future[Any]) -> None:
        done(waiter)

    future.add_done_callback(wake)
    try:
        yield from waiter
    finally:
        future.remove_done_callback(wake)
