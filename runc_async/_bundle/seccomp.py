"""The filter of system calls: what programs need, and nothing that reaches past the container.

An allow list. Every system call of Linux 7.1 on x86-64, i386, arm64 and arm is in one of the groups below; the names
are those of the kernel's tables (``syscall_64.tbl`` and its like), so a name may be missing on one architecture.

- What is in an allowed group passes.
- What is in a refused group fails with EPERM, so that a program can tell the reason.
- Everything else fails with ENOSYS, as on a kernel that does not have it: what is too old for any program, what is too
  new for this table, and the calls whose callers fall back to another one.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from .._cli.validation import check_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .spec import LinuxSeccomp, SeccompArg, Syscall

__all__ = ["seccomp_profile"]

ENOSYS = 38
EPERM = 1


class Group(NamedTuple):
    """System calls that are decided for one reason."""

    reason: str
    names: str


ALLOWED = (
    Group(
        "Files by their path. Permissions, and the container's own mounts, decide what can be reached.",
        """access chdir chmod chown chown32 creat execve execveat faccessat faccessat2 fchmodat fchmodat2 fchownat
        file_getattr file_setattr fstatat64 futimesat getcwd getxattr getxattrat lchown lchown32 lgetxattr link linkat
        listmount listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
        newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename renameat renameat2 rmdir
        setxattr setxattrat stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask
        unlink unlinkat utime utimensat utimensat_time64 utimes""",
    ),
    Group(
        "Open files.",
        """_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchdir
        fchmod fchown fchown32 fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64
        fstatfs fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 ioctl lseek memfd_create pipe pipe2 pread64
        preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range
        sync_file_range2 syncfs tee write writev""",
    ),
    Group(
        "Waiting for descriptors and events.",
        """_newselect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
        inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64
        select signalfd signalfd4""",
    ),
    Group(
        "Memory of the process itself.",
        """brk madvise map_shadow_stack memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal
        msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect""",
    ),
    Group(
        "Processes and threads. The pid namespace limits which ones a program sees; for `clone` see below.",
        """exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
        getpgid getpgrp getpid getppid getsid gettid membarrier pidfd_open prctl process_mrelease restart_syscall rseq
        rseq_slice_yield set_robust_list set_tid_address setpgid setsid vfork wait4 waitid waitpid""",
    ),
    Group(
        "Signals.",
        """alarm getitimer kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaltstack
        sigprocmask sigreturn tgkill tkill""",
    ),
    Group(
        "Users and capabilities. Without a capability a program gets only what it has already.",
        """capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
        getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
        setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
        setuid setuid32""",
    ),
    Group(
        "Time: read it, sleep, timers. The kernel asks for CAP_SYS_TIME where a clock would change.",
        """adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time timer_create timer_delete timer_getoverrun
        timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
        timerfd_settime timerfd_settime64 times""",
    ),
    Group(
        "Scheduling and limits of the program's own processes.",
        """getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
        sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
        setpriority setrlimit ugetrlimit""",
    ),
    Group(
        "Sockets that exist. Which ones can be made is decided below, by `socket` and `socketpair`.",
        """accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
        recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown""",
    ),
    Group(
        "System V and POSIX IPC, which an IPC namespace keeps in the container.",
        """ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
        mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
        shmget""",
    ),
    Group("What every program may know of the machine.", "getrandom sysinfo uname"),
    Group(
        "Restrictions that a program puts on itself.",
        "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    ),
    Group(
        "Calls of one architecture that C libraries and compilers emit.",
        """arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush get_thread_area riscv_flush_icache
        riscv_hwprobe s390_guarded_storage set_thread_area set_tls swapcontext uprobe uretprobe""",
    ),
)

# Left out by "strict".
ALLOWED_BY_DEFAULT = (
    Group(
        "Debuggers, strace and LeakSanitizer: processes of the same user in the container.", "process_vm_readv ptrace"
    ),
    Group(
        "Asynchronous I/O, for databases.",
        "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit",
    ),
)

# By the capabilities of which one is enough. Where the container has none of them, EPERM.
BY_CAPABILITY: dict[tuple[str, ...], Group] = {
    ("CAP_SYS_ADMIN",): Group(
        "Mounts, namespaces, names and quotas of the whole container or machine.",
        """fanotify_init fanotify_mark fsconfig fsmount fsopen fspick listns mount mount_setattr move_mount open_tree
        open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns umount umount2""",
    ),
    ("CAP_BPF", "CAP_SYS_ADMIN"): Group("Programs in the kernel.", "bpf"),
    ("CAP_PERFMON", "CAP_SYS_ADMIN"): Group("Counters of the kernel and of other processes.", "perf_event_open"),
    ("CAP_SYSLOG", "CAP_SYS_ADMIN"): Group("The host's kernel log.", "syslog"),
    ("CAP_DAC_READ_SEARCH",): Group(
        "Files by a handle, past the directories above them: a known way out of containers.",
        "name_to_handle_at open_by_handle_at",
    ),
    ("CAP_SYS_BOOT",): Group("The machine's, or in a pid namespace the container's, end.", "reboot"),
    ("CAP_SYS_CHROOT",): Group("Another root directory.", "chroot"),
    ("CAP_SYS_MODULE",): Group("Kernel modules.", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE",): Group(
        "On which memory of the machine pages lie.",
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYS_PACCT",): Group("Accounting of every process into a file.", "acct"),
    ("CAP_SYS_PTRACE",): Group(
        "Other processes' descriptors and memory, without stopping them.",
        "kcmp pidfd_getfd process_madvise process_vm_writev",
    ),
    ("CAP_SYS_RAWIO",): Group("The machine's ports.", "ioperm iopl"),
    ("CAP_SYS_TIME",): Group("The machine's clocks.", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG",): Group("Hanging up a terminal.", "vhangup"),
}

REFUSED = (
    Group("Keys of the kernel, which no namespace keeps apart.", "add_key keyctl request_key"),
    Group(
        "io_uring: a second way to nearly every system call, which no filter sees; many kernel bugs.",
        "io_uring_enter io_uring_register io_uring_setup",
    ),
    Group("Stopping the kernel in the middle of a page fault, which makes its races easy to win.", "userfaultfd"),
    Group(
        "Another kernel, the machine's swap and its buses.",
        "kexec_file_load kexec_load pciconfig_iobase pciconfig_read pciconfig_write swapoff swapon",
    ),
    Group("Segments and modes of 16-bit programs; kernel bugs again and again.", "modify_ldt vm86 vm86old"),
    Group("Pages given away into a pipe while they can still be changed.", "vmsplice"),
    Group(
        "On i386 all socket calls in one, whose arguments lie in memory, where no filter sees them. musl does not use"
        " it; 32-bit programs of the GNU C library have no sockets.",
        "socketcall",
    ),
)

# Nothing is emitted for these: they are what the default action is for. They are listed so that it can be seen
# that nobody forgot them.
MISSING = (
    Group(
        "Its flags lie in memory, where no filter sees them. Told that it is missing, C libraries use `clone`.",
        "clone3",
    ),
    Group("C libraries read these from /proc instead.", "lsm_get_self_attr lsm_list_modules lsm_set_self_attr"),
    Group(
        "Gone from the kernel, never in it, or replaced before any program that runs today.",
        """_sysctl afs_syscall bdflush break create_module epoll_ctl_old epoll_wait_old ftime get_kernel_syms
        getpmsg gtty idle lock lookup_dcookie mpx nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname prof
        profil putpmsg query_module readdir remap_file_pages security sgetmask sigaction signal sigpending sigsuspend
        ssetmask stty sysfs tuxcall ulimit uselib ustat vserver""",
    ),
)

# unshare(2) and clone(2). CLONE_NEWTIME is for unshare alone: clone has its signal there.
NEW_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
CLONE_NEWTIME = 0x80

# socket(2)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
IPPROTO_ICMP = 1
PROTOCOLS = (0, 6, 17)  # the default one, TCP, UDP

# personality(2)
PER_LINUX, PER_LINUX32, UNAME26, QUERY = 0, 0x8, 0x20000, 0xFFFFFFFF
# Other systems' programs, and flags from ADDR_NO_RANDOMIZE to ADDR_LIMIT_3GB.
OTHER_PERSONALITIES = tuple(1 << bit for bit in (0, 1, 2, 4, *range(18, 28)))

# How a program may enter the kernel; by another way it is killed (SIGSYS). The first is the machine's own.
# On x86-64 there is no second: through the 32-bit entry a program reaches the kernel's compatibility code, which has
# had bugs of its own, and with it libseccomp takes 15 ms longer to make the filter, at every start. Who runs 32-bit
# programs appends "SCMP_ARCH_X86"; the table has the names of i386. x32 no kernel of a distribution has switched on.
# Where nothing is listed, the runtime makes a filter for the machine's own.
ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64",),
    "i386": ("SCMP_ARCH_X86",),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "arm": ("SCMP_ARCH_ARM",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "s390x": ("SCMP_ARCH_S390X",),
}
SAME_MACHINE = {"amd64": "x86_64", "i686": "i386", "i586": "i386", "arm64": "aarch64", "armv7l": "arm", "armv8l": "arm"}


def seccomp_profile(
    choice: str | bool | Mapping[str, object],
    *,
    capabilities: Collection[str] = (),
    only_loopback: bool = True,
    machine: str | None = None,
) -> LinuxSeccomp | None:
    """The ``linux.seccomp`` of a choice.

    :param choice: ``"default"`` or True, ``"strict"``, ``"unconfined"`` or False, or a profile, which is copied.
    :param capabilities: what the container has. ``"default"`` allows what needs them.
    :param only_loopback: whether the container's network has nothing but a loopback device. A filter sees no
        addresses, so ``"strict"`` allows Internet sockets where they reach no other machine, and only there.
    :param machine: as `platform.machine` names it; None is this one.
    :returns: the profile; None means no filter.
    :raises TypeError: the choice is neither a str, a bool nor a mapping.
    :raises ValueError: the choice is a str that is not one of these, or a mapping without ``defaultAction``.
    """
    if isinstance(choice, bool):
        choice = "default" if choice else "unconfined"
    if isinstance(choice, str):
        if choice not in ("default", "strict", "unconfined"):
            raise ValueError(f"seccomp must be 'default', 'strict', 'unconfined' or a profile, not {choice!r}")
        if choice == "unconfined":
            return None
        strict = choice == "strict"
        return _profile(strict, frozenset(capabilities), only_loopback, machine or platform.machine())
    check_type("seccomp", choice, Mapping, wanted="a str, a bool or a profile")
    if "defaultAction" not in choice:
        raise ValueError("seccomp: a profile must have a defaultAction (config-linux.md)")
    return cast("LinuxSeccomp", copy.deepcopy(dict(choice)))


def _profile(strict: bool, capabilities: frozenset[str], only_loopback: bool, machine: str) -> LinuxSeccomp:
    machine = SAME_MACHINE.get(machine, machine)
    allowed, refused = _names(ALLOWED), _names(REFUSED)
    (refused if strict else allowed).extend(_names(ALLOWED_BY_DEFAULT))
    for enough, group in BY_CAPABILITY.items():
        given = not strict and not capabilities.isdisjoint(enough)
        (allowed if given else refused).extend(_names([group]))
    syscalls: list[Syscall] = []
    if not strict and "CAP_SYS_ADMIN" in capabilities:
        allowed.extend(["clone", "clone3", "unshare"])
    else:
        syscalls += _namespace_rules("clone", 1 if machine == "s390x" else 0, NEW_NAMESPACES)
        syscalls += _namespace_rules("unshare", 0, (*NEW_NAMESPACES, CLONE_NEWTIME))
    syscalls += _socket_rules(strict, only_loopback, "CAP_NET_RAW" in capabilities)
    syscalls += _personality_rules()
    profile: LinuxSeccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "syscalls": [
            {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"},
            {"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
            *syscalls,
        ],
    }
    if machine in ARCHITECTURES:
        profile["architectures"] = list(ARCHITECTURES[machine][: 1 if strict else None])
    return profile


def _names(groups: Iterable[Group]) -> list[str]:
    return [name for group in groups for name in group.names.split()]


def _allow(name: str, *conditions: SeccompArg) -> Syscall:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(conditions)}


def _refuse(name: str, *conditions: SeccompArg) -> Syscall:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": list(conditions)}


def _is(index: int, value: int) -> SeccompArg:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _greater(index: int, value: int) -> SeccompArg:
    return {"index": index, "value": value, "op": "SCMP_CMP_GT"}


def _compare_masked(index: int, mask: int, value: int) -> SeccompArg:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _others(index: int, values: Collection[int]) -> list[SeccompArg]:
    """Conditions of which one is met by every other value. Two conditions on one argument cannot be joined by "and"."""
    most = max(values)
    between = [_is(index, value) for value in range(most) if value not in values]
    return [*between, _greater(index, most)]


def _namespace_rules(name: str, index: int, flags: Iterable[int]) -> list[Syscall]:
    """Allow `clone` and `unshare` where they make no namespace."""
    flags = list(flags)
    return [
        _allow(name, _compare_masked(index, sum(flags), 0)),
        *(_refuse(name, _compare_masked(index, flag, flag)) for flag in flags),
    ]


def _socket_rules(strict: bool, only_loopback: bool, raw: bool) -> list[Syscall]:
    """Allow the address families that programs use: nothing that loads a kernel module or leaves a network namespace.

    AF_VSOCK talks to the machine that this one runs on and belongs to no network namespace; AF_ALG and many others
    have had kernel bugs that any user could reach.
    """
    rules = [_allow("socketpair", _is(0, AF_UNIX)), *(_refuse("socketpair", other) for other in _others(0, {AF_UNIX}))]
    rules.append(_allow("socket", _is(0, AF_UNIX)))
    families = {AF_INET, AF_INET6} if not strict or only_loopback else set[int]()
    if strict:
        for family in sorted(families):  # not SCTP, MPTCP and their like; those between need CAP_NET_RAW
            rules += [_allow("socket", _is(0, family), _is(2, protocol)) for protocol in PROTOCOLS]
            rules.append(_refuse("socket", _is(0, family), _is(2, IPPROTO_ICMP)))
            rules.append(_refuse("socket", _is(0, family), _greater(2, PROTOCOLS[-1])))
    else:
        families |= {AF_NETLINK} | ({AF_PACKET} if raw else set())
        rules += [_allow("socket", _is(0, family)) for family in sorted(families)]
    return [*rules, *(_refuse("socket", other) for other in _others(0, {AF_UNIX, *families}))]


def _personality_rules() -> list[Syscall]:
    """Allow `personality` to ask, and to be an ordinary 32-bit or 64-bit Linux."""
    values = (PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 | UNAME26, QUERY)
    top = 1 << 31  # set in a query, and in no personality
    return [
        *(_allow("personality", _is(0, value)) for value in values),
        *(_refuse("personality", _compare_masked(0, top | bit, bit)) for bit in OTHER_PERSONALITIES),
    ]
