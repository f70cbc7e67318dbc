"""What a filter of system calls decides: libseccomp makes it, as for the runtimes, and Python runs it."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL = 0x00000000

# linux/audit.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "arm64": 0xC00000B7, "arm": 0x40000028}
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # seccomp.h: from 1 on


class Syscall(NamedTuple):
    """A line of the table: numbers by architecture, None where there is none; what two others let pass."""

    numbers: dict[str, int | None]
    docker: str
    podman: str


def syscall_table() -> dict[str, Syscall]:
    """Every system call of Linux 7.1, by name."""
    lines = Path(__file__).with_name("data").joinpath("syscalls.tsv").read_text().splitlines()
    table = {}
    for line in lines[1:]:
        name, *numbers, docker, podman = line.split("\t")
        by_machine = {
            machine: None if number == "-" else int(number) for machine, number in zip(AUDIT_ARCH, numbers, strict=True)
        }
        table[name] = Syscall(by_machine, docker, podman)
    return table


class _Argument(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    """A profile as the kernel gets it.

    :ivar unknown: names that this libseccomp does not know; the runtimes leave them out.
    """

    def __init__(self, profile: Any) -> None:
        found = ctypes.util.find_library("seccomp")
        if found is None:
            pytest.skip("libseccomp is missing: install the Debian package libseccomp2")
        library = ctypes.CDLL(found)
        library.seccomp_init.restype = ctypes.c_void_p
        context = ctypes.c_void_p(library.seccomp_init(_action({**profile, "action": profile["defaultAction"]})))
        self.unknown: set[str] = set()
        for index, name in enumerate(profile["architectures"]):
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            library.seccomp_arch_add(context, ctypes.c_uint32(token))
            if index == 0 and token != library.seccomp_arch_native():
                library.seccomp_arch_remove(context, ctypes.c_uint32(library.seccomp_arch_native()))
        for rule in profile["syscalls"]:
            if _action(rule) == _action({**profile, "action": profile["defaultAction"]}):
                continue
            self._add(library, context, rule)
        with tempfile.TemporaryFile() as file:
            assert library.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            self._program = list(struct.iter_unpack("HBBI", file.read()))
        library.seccomp_release(context)

    def _add(self, library: Any, context: ctypes.c_void_p, rule: Any) -> None:
        arguments = [
            _Argument(
                argument["index"],
                COMPARISONS.index(argument["op"].removeprefix("SCMP_CMP_")) + 1,
                argument["value"],
                argument.get("valueTwo", 0),
            )
            for argument in rule.get("args", [])
        ]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                self.unknown.add(name)
                continue
            array = (_Argument * len(arguments))(*arguments)
            failed = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(_action(rule)), number, len(arguments), array
            )
            assert failed == 0, (name, rule, failed)

    def __call__(self, machine: str, number: int, *arguments: int) -> str | int:
        """``"allow"``, ``"kill"``, or the error that the call fails with."""
        padded = [*arguments, *[0] * (6 - len(arguments))]
        data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine], 0, *padded)
        at = accumulator = 0
        while True:
            code, if_true, if_false, value = self._program[at]
            at += 1
            if code == 0x20:  # load a word
                accumulator = struct.unpack_from("<I", data, value)[0]
            elif code == 0x54:  # and
                accumulator &= value
            elif code == 0x05:  # jump
                at += value
            elif code == 0x06:  # return
                return {ALLOW: "allow", KILL: "kill"}.get(value, value & 0xFFFF)
            else:
                taken = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[code]
                at += if_true if taken else if_false


def _action(rule: Any) -> int:
    if rule["action"] == "SCMP_ACT_ALLOW":
        return ALLOW
    return ERRNO | int(rule.get("errnoRet", rule.get("defaultErrnoRet", 1)))
