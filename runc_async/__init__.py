"""Asyncio-native client for OCI runtimes (runc, crun), on asyncio, uvloop and trio.

Every public name is importable from here; modules with a leading underscore are private.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._client import Runc
from ._console import Console, TerminalSize
from ._container import Container
from ._container_process import ContainerProcess
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
from ._linux.pidfd import Pidfd
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
from ._process.trace import Call
from ._sockets import ConsoleSocket, PidfdSocket

if TYPE_CHECKING:
    from ._bundle.bundle import Bundle, temporary_bundle
    from ._bundle.default_spec import default_spec
    from ._bundle.image import Image, unpack_image
    from ._bundle.rootfs import busybox_rootfs, tar_rootfs
    from ._bundle.spec import Hooks, Linux, LinuxResources, LinuxSeccomp, Mount, Process, Spec
    from ._cli.options import (
        CheckpointOptions,
        ExecOptions,
        RestoreOptions,
        RunOptions,
        StartOptions,
        StrPath,
        UpdateOptions,
    )
    from ._files import ContainerFiles
    from ._jobs.job import Job, Result, Verdict
    from ._jobs.pool import Pool
    from ._jobs.running import RunningJob
    from ._usage import Usage
else:
    # Imported when first used: only bundles need tarfile and the types of a specification.
    _LATER = {
        "_bundle.bundle": ("Bundle", "temporary_bundle"),
        "_bundle.default_spec": ("default_spec",),
        "_bundle.image": ("Image", "unpack_image"),
        "_bundle.rootfs": ("busybox_rootfs", "tar_rootfs"),
        "_bundle.spec": ("Hooks", "Linux", "LinuxResources", "LinuxSeccomp", "Mount", "Process", "Spec"),
        "_cli.options": (
            "CheckpointOptions",
            "ExecOptions",
            "RestoreOptions",
            "RunOptions",
            "StartOptions",
            "StrPath",
            "UpdateOptions",
        ),
        "_files": ("ContainerFiles",),
        "_jobs.job": ("Job", "Result", "Verdict"),
        "_jobs.pool": ("Pool",),
        "_jobs.running": ("RunningJob",),
        "_usage": ("Usage",),
    }

    def __getattr__(name):
        for module, names in _LATER.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "IO",
    "Bundle",
    "BundleError",
    "Call",
    "CheckpointOptions",
    "CommandError",
    "CompletedProcess",
    "Console",
    "ConsoleSocket",
    "Container",
    "ContainerExistsError",
    "ContainerFiles",
    "ContainerNotFoundError",
    "ContainerNotRunningError",
    "ContainerProcess",
    "ContainerRunningError",
    "ContainerState",
    "DecodeError",
    "Event",
    "ExecOptions",
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
    "Job",
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
    "Pool",
    "Process",
    "RestoreOptions",
    "Result",
    "RunOptions",
    "Runc",
    "RuncError",
    "RunningJob",
    "SealedExecutor",
    "Spec",
    "StartOptions",
    "Stats",
    "Stdio",
    "StrPath",
    "Subreaper",
    "TerminalSize",
    "TopResults",
    "UnsupportedError",
    "UpdateOptions",
    "Usage",
    "Verdict",
    "Version",
    "busybox_rootfs",
    "default_spec",
    "tar_rootfs",
    "temporary_bundle",
    "unpack_image",
]
