"""A container that is ready for a job: made, with what it needs, and not yet used."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

from .._bundle.bundle import Bundle, temporary_bundle
from .._container_context import create
from .._eventloop.shield import at_checkpoints_only
from .._io import PipeIO
from .._lifecycle.call import CREATE, StartCall
from .._lifecycle.dialect import check_files
from .job import is_host_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from .._cli.options import StrPath
    from .._container import Container
    from .._files import ContainerFiles
    from .._lifecycle.runner import Runner
    from .job import Job

__all__ = ["Prepared", "prepare"]


class Prepared:
    """A container of a job, created or started, and its directory of files."""

    def __init__(
        self, job: Job, container: Container[PipeIO], stack: contextlib.AsyncExitStack, *, has_stdin: bool
    ) -> None:
        self.job = job
        self.has_stdin = has_stdin
        self.container = container
        self.files: ContainerFiles | None = None
        self.is_started = False
        self._stack = stack

    @property
    def io(self) -> PipeIO:
        """Its streams."""
        return self.container.io

    def open_files(self) -> ContainerFiles:
        """Open its directory of files."""
        if self.files is None:
            self.files = self._stack.enter_context(self.container.files(self.job.work_path))
        return self.files

    async def write(self, files: Mapping[str, bytes | StrPath]) -> None:
        """Write files below the job's `Job.work_path`.

        :raises OSError: one cannot be read or written.
        """
        for name, what in files.items():
            if isinstance(what, bytes):
                await self.open_files().write(name, what)
            elif is_host_path(what):
                await self.open_files().copy_in(what, name)
            else:
                raise TypeError(f"files: {name!r} must be bytes or a path, not {type(what).__name__}")

    async def start(self) -> None:
        """Start its program, if it is not started yet."""
        if not self.is_started:
            await self.container.start()
            self.is_started = True


@contextlib.asynccontextmanager
@at_checkpoints_only
async def prepare(
    runner: Runner, job: Job, *, with_stdin: bool, id: str | None = None, folder: StrPath | None = None
) -> AsyncGenerator[Prepared]:
    """Create a container for a job; it is gone when the context is left.

    Nothing that belongs to one task is held meanwhile, so another task may leave the context.

    :param with_stdin: whether its stdin is a pipe.
    :param id: the container's; None makes one.
    :param folder: where its bundle and its pid file are made, which the caller removes; None is a private directory.
    """
    await runner.find_dialect()
    if job.files or job.collect:
        check_files(runner.dialect, id or job.name)
    async with contextlib.AsyncExitStack() as stack:
        spec = job.container_spec()
        options = {} if folder is None else {"pid_file": os.path.join(folder, "pid")}
        if folder is None:
            bundle = await stack.enter_async_context(temporary_bundle(spec, rootfs=job.rootfs, writable=job.writable))
        else:
            bundle = Bundle.create(folder, spec, rootfs=job.rootfs, writable=job.writable)
        io = PipeIO(stdin=with_stdin)
        call = StartCall(CREATE, id or f"{job.name}-{uuid.uuid4().hex[:16]}", bundle, io, options=options)
        container = await stack.enter_async_context(create(runner, call, io))
        prepared = Prepared(job, container, stack, has_stdin=with_stdin)
        if runner.dialect.shows_files and (job.work is not None or job.files or job.collect):
            prepared.open_files()
        yield prepared
