"""The filter of system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spec import LinuxSeccomp, Syscall

__all__ = ["SECCOMP"]

CLONE_NEWUSER = 0x10000000
ENOSYS = 38
NEW_USER_NAMESPACE: Syscall = {
    "names": ["clone", "unshare"],
    "action": "SCMP_ACT_ERRNO",
    "args": [
        {"index": 0, "value": CLONE_NEWUSER, "valueTwo": CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"},
    ],
}

# Not a list of all that is allowed, which breaks programs with every new kernel; but of what needs no capability,
# no untrusted program has a use for, and kernel bugs were found in again and again.
SECCOMP: LinuxSeccomp = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": [
                "add_key", "bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp", "kexec_file_load",
                "kexec_load", "keyctl", "name_to_handle_at", "open_by_handle_at", "perf_event_open",
                "process_vm_writev", "request_key", "userfaultfd",
            ],
            "action": "SCMP_ACT_ERRNO",
        },
        NEW_USER_NAMESPACE,
        # Its flags lie in memory, where no filter sees them; told that it is missing, libraries use clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    ],
}  # fmt: skip
