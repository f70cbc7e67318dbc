"""Asyncio-native client for OCI runtimes (runc, crun), on asyncio, uvloop and trio.

Every public name is importable from here; modules with a leading underscore are private.
"""

from ._bundle import Bundle, Image, busybox_rootfs, tar_rootfs, temporary_bundle, unpack_image
from ._client import Runc
from ._console import Console, TerminalSize
from ._container import Container, ContainerProcess
from ._default_spec import default_spec
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
from ._io import IO, FileIO, InheritIO, NullIO, PipeIO, Stdio
from ._models import (
    CompletedProcess,
    ContainerState,
    Event,
    Exit,
    Features,
    Stats,
    TopResults,
    Version,
)
from ._monitor import Monitor, Subreaper
from ._pidfd import Pidfd
from ._sockets import ConsoleSocket, PidfdSocket
from ._spec import Hooks, Linux, LinuxResources, LinuxSeccomp, Mount, Process, Spec
from ._trace import Call

__all__ = [
    "IO",
    "Bundle",
    "BundleError",
    "Call",
    "CommandError",
    "CompletedProcess",
    "Console",
    "ConsoleSocket",
    "Container",
    "ContainerExistsError",
    "ContainerNotFoundError",
    "ContainerNotRunningError",
    "ContainerProcess",
    "ContainerRunningError",
    "ContainerState",
    "DecodeError",
    "Event",
    "Executable",
    "Executor",
    "ExecutorError",
    "Exit",
    "FdExecutor",
    "Features",
    "FileIO",
    "Hooks",
    "Image",
    "InheritIO",
    "InvalidContainerIdError",
    "Linux",
    "LinuxResources",
    "LinuxSeccomp",
    "LogEntry",
    "Monitor",
    "Mount",
    "NullIO",
    "PathExecutor",
    "Pidfd",
    "PidfdSocket",
    "PipeIO",
    "Process",
    "Runc",
    "RuncError",
    "SealedExecutor",
    "Spec",
    "Stats",
    "Stdio",
    "Subreaper",
    "TerminalSize",
    "TopResults",
    "UnsupportedError",
    "Version",
    "busybox_rootfs",
    "default_spec",
    "tar_rootfs",
    "temporary_bundle",
    "unpack_image",
]
