"""``config.json``, as far as a call needs it: where the cgroups are, what the container's own process is."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from .._linux.procfs import read_file
from .._models import parse_json

__all__ = ["Config", "read_config"]


class _Linux(msgspec.Struct):
    cgroupsPath: str | None = None  # noqa: N815 (the specification's name)


class _Mount(msgspec.Struct):
    destination: str = ""
    type: str = ""


class _Rlimit(msgspec.Struct):
    type: str = ""
    soft: int = 0


class _Process(msgspec.Struct):
    rlimits: list[_Rlimit] = []


class _File(msgspec.Struct):
    process: msgspec.Raw = msgspec.Raw()
    mounts: msgspec.Raw = msgspec.Raw()
    linux: _Linux | None = None


class Config:
    """What a ``config.json`` said when it was read.

    :ivar path: its path.
    :ivar is_missing: whether there was no such file.
    :ivar cgroups_path: ``linux.cgroupsPath``; None if the file does not say, or cannot be read.
    """

    def __init__(self, path: str, content: bytes | None, *, is_missing: bool = False) -> None:
        self.path = path
        self.is_missing = is_missing
        self._is_valid = False
        self._process = self._mounts = b""
        self.cgroups_path: str | None = None
        if content is not None:
            try:
                file = msgspec.json.decode(content, type=_File)
            except (msgspec.DecodeError, ValueError):  # the runtime says what is wrong with it
                return
            self._is_valid = True
            self._process = bytes(file.process)  # not a view, which would keep the whole file
            self._mounts = bytes(file.mounts)
            self.cgroups_path = file.linux.cgroupsPath if file.linux else None

    @property
    def process(self) -> dict[str, Any]:
        """The ``process`` object; empty if there is none."""
        return parse_json(dict[str, Any], self._process) if self._process else {}

    @property
    def mounts(self) -> list[tuple[str, str]]:
        """The destination and the type of each mount; none if the runtime will refuse them."""
        try:
            mounts = msgspec.json.decode(self._mounts, type=list[_Mount]) if self._mounts else []
        except msgspec.DecodeError:
            return []
        return [(mount.destination, mount.type) for mount in mounts]

    @property
    def fsize(self) -> int | None:
        """The soft ``RLIMIT_FSIZE`` of its process, in bytes; None if there is none."""
        try:
            process = msgspec.json.decode(self._process, type=_Process) if self._process else _Process()
        except msgspec.DecodeError:  # the runtime says what is wrong with it
            return None
        return next((limit.soft for limit in process.rlimits if limit.type == "RLIMIT_FSIZE"), None)

    @property
    def names_no_program(self) -> bool:
        """Whether it is a specification, but names no program to run."""
        return self._is_valid and not self.process.get("args")


def read_config(directory: str, name: str = "config.json") -> Config:
    """Read the ``config.json`` of a bundle. Never raises: the runtime says what is wrong with it.

    :param directory: the bundle, an absolute path.
    :param name: another name of the file (crun's ``--config``).
    """
    path = os.path.join(directory, name)
    try:
        return Config(path, read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        return Config(path, None, is_missing=True)
    except OSError:  # this user may not read it
        return Config(path, None)
