"""Asyncio-native client for OCI runtimes (runc, crun), on asyncio, uvloop and trio.

Every public name is importable from here; modules with a leading underscore are private.
"""

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

__all__ = [
    "BundleError",
    "CommandError",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "ContainerNotRunningError",
    "ContainerRunningError",
    "DecodeError",
    "ExecutorError",
    "InvalidContainerIdError",
    "LogEntry",
    "RuncError",
    "UnsupportedError",
]
