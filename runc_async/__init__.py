"""Asyncio-native client for OCI runtimes (runc, crun), on asyncio, uvloop and trio.

Every public name is importable from here; modules with a leading underscore are private.
"""

from ._client import Runc
from ._container import Container, ContainerProcess
from ._errors import (
    BundleError,
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    ContainerRunningError,
    DecodeError,
    ExecutorError,
    InvalidContainerIdError,
    LogEntry,
    RuncError,
    UnsupportedError,
)
from ._executor import Executable, Executor, FdExecutor, PathExecutor, SealedExecutor
from ._io import IO, InheritIO, NullIO, PipeIO, Stdio
from ._monitor import Monitor, Subreaper

__all__ = [
    "IO",
    "BundleError",
    "CommandError",
    "Container",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "ContainerNotRunningError",
    "ContainerProcess",
    "ContainerRunningError",
    "DecodeError",
    "Executable",
    "Executor",
    "ExecutorError",
    "FdExecutor",
    "InheritIO",
    "InvalidContainerIdError",
    "LogEntry",
    "Monitor",
    "NullIO",
    "PathExecutor",
    "PipeIO",
    "Runc",
    "RuncError",
    "SealedExecutor",
    "Stdio",
    "Subreaper",
    "UnsupportedError",
]
