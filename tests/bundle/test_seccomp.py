"""The filter of system calls: every call of four kernel tables is decided, and libseccomp makes of it what is meant."""

from __future__ import annotations

import copy
import platform
from errno import ENOSYS, EPERM
from typing import Any

import pytest

from runc_async import default_spec
from runc_async._bundle import seccomp
from runc_async._bundle.seccomp import seccomp_profile

from .._seccomp import Filter, syscall_table

TABLE = syscall_table()
MACHINES = {"x86_64": ["x86_64"], "aarch64": ["arm64", "arm"]}
BY_ARGUMENTS = {"clone", "personality", "socket", "socketpair", "unshare"}
# ARM's own calls are numbered apart from the table; the others are of architectures that the table does not have.
NOT_IN_THE_TABLE = {
    "breakpoint", "cacheflush", "riscv_flush_icache", "riscv_hwprobe", "s390_guarded_storage", "set_tls", "swapcontext",
    "sync_file_range2",
}  # fmt: skip

ALLOWED = set(seccomp._names(seccomp.ALLOWED))
ALLOWED_BY_DEFAULT = set(seccomp._names(seccomp.ALLOWED_BY_DEFAULT))
BY_CAPABILITY = set(seccomp._names(seccomp.BY_CAPABILITY.values()))
REFUSED = set(seccomp._names(seccomp.REFUSED))
MISSING = set(seccomp._names(seccomp.MISSING))

UNIX, INET, INET6, NETLINK, PACKET, ALG, VSOCK = 1, 2, 10, 16, 17, 38, 40
STREAM, DGRAM = 1, 2
TCP, UDP, ICMP, SCTP, MPTCP = 6, 17, 1, 132, 262
NAMESPACES = {
    "mnt": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
NEWTIME = 0x80


def decide(profile: Any, machine: str = "x86_64") -> Any:
    """What the filter of a profile says to a call by name."""
    filter = Filter(profile)

    def ask(name: str, *arguments: int) -> str | int:
        number = TABLE[name].numbers[machine]
        assert number is not None
        return filter(machine, number, *arguments)

    return ask


def test_every_system_call_is_decided_once() -> None:
    groups = [ALLOWED, ALLOWED_BY_DEFAULT, BY_CAPABILITY, REFUSED, MISSING, BY_ARGUMENTS]
    assert set.union(*groups) - NOT_IN_THE_TABLE == set(TABLE)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_nothing_passes_that_docker_refuses_but_for_what_it_does_not_know_and_needs_no_capability() -> None:
    ours = ALLOWED | ALLOWED_BY_DEFAULT | BY_ARGUMENTS
    more = {name for name in ours - NOT_IN_THE_TABLE if TABLE[name].docker == "-"}
    ours_alone = {"file_getattr", "file_setattr", "rseq_slice_yield", "uprobe"}  # newer than Docker's table
    on_arm = {"arm_fadvise64_64", "arm_sync_file_range"}  # Docker has them by architecture
    assert more - on_arm == {*ours_alone, "unshare"}  # which makes no namespace here


@pytest.mark.parametrize("choice", ["default", "strict"])
@pytest.mark.parametrize("machine", MACHINES)
def test_libseccomp_makes_of_it_what_is_meant_for_every_number(machine: str, choice: str) -> None:
    filter = Filter(seccomp_profile(choice, machine=machine))
    allowed = ALLOWED | (ALLOWED_BY_DEFAULT if choice == "default" else set())
    refused = REFUSED | BY_CAPABILITY | (ALLOWED_BY_DEFAULT if choice == "strict" else set())
    own, *others = MACHINES[machine]
    for architecture in [own, *(others if choice == "default" else [])]:
        names = {call.numbers[architecture]: name for name, call in TABLE.items()}
        for number in range(600):
            name = names.get(number)
            if name in BY_ARGUMENTS:
                continue
            expected: str | int = ENOSYS
            if name is not None and name not in filter.unknown:
                expected = "allow" if name in allowed else EPERM if name in refused else ENOSYS
            assert filter(architecture, number) == expected, (architecture, number, name)
    if choice == "strict":
        assert {filter(architecture, number) for architecture in others for number in range(600)} <= {"kill"}


def test_on_x86_64_there_is_no_second_way_into_the_kernel_unless_asked_for() -> None:
    profile: Any = seccomp_profile("default", machine="x86_64")
    filter = Filter(profile)
    x32 = 0x40000000
    assert {filter("i386", number) for number in range(500)} == {filter("x86_64", x32 | 1)} == {"kill"}
    profile["architectures"].append("SCMP_ARCH_X86")
    i386 = decide(profile, "i386")
    assert (i386("read"), i386("mmap2"), i386("keyctl"), i386("clone3")) == ("allow", "allow", EPERM, ENOSYS)
    assert i386("clone", NAMESPACES["user"]) == EPERM
    # Not round the rules for sockets by the call that hides its arguments.
    assert {i386("socketcall", call) for call in range(21)} == {EPERM}
    assert (i386("socket", UNIX), i386("socket", ALG), i386("socket", VSOCK)) == ("allow", EPERM, EPERM)


def test_sockets_of_the_families_that_programs_use_and_no_others() -> None:
    ask = decide(seccomp_profile("default", machine="x86_64"))
    assert {family for family in range(256) if ask("socket", family, STREAM) == "allow"} == {UNIX, INET, INET6, NETLINK}
    assert {ask("socket", family) for family in (0, PACKET, ALG, VSOCK, 255, 1 << 31)} == {EPERM}
    # The kernel looks at 32 bits of an int; the filter sees 64.
    assert {ask("socket", 1 << 32 | family) for family in (UNIX, ALG, VSOCK)} == {EPERM}
    assert ask("socket", INET, STREAM, SCTP) == "allow"
    assert {family for family in range(256) if ask("socketpair", family) == "allow"} == {UNIX}
    raw = decide(seccomp_profile("default", machine="x86_64", capabilities={"CAP_NET_RAW"}))
    assert (raw("socket", PACKET), raw("socket", VSOCK)) == ("allow", EPERM)


def test_strict_has_unix_sockets_and_tcp_and_udp_where_there_is_only_loopback() -> None:
    ask = decide(seccomp_profile("strict", machine="x86_64"))
    assert {family for family in range(256) if ask("socket", family, STREAM) == "allow"} == {UNIX, INET, INET6}
    for family in (INET, INET6):
        assert {ask("socket", family, kind, p) for kind in (STREAM, DGRAM) for p in (0, TCP, UDP)} == {"allow"}
        assert {ask("socket", family, STREAM, p) for p in (ICMP, SCTP, MPTCP)} == {EPERM}
    reaching = decide(seccomp_profile("strict", machine="x86_64", only_loopback=False))
    assert {family for family in range(256) if reaching("socket", family, STREAM) == "allow"} == {UNIX}


@pytest.mark.parametrize("choice", ["default", "strict"])
def test_no_namespace_can_be_made(choice: str) -> None:
    ask = decide(seccomp_profile(choice, machine="x86_64"))
    sigchld, thread = 17, 0x003D0F00
    assert (ask("clone", sigchld), ask("clone", thread)) == ("allow", "allow")
    assert {ask("clone", flag | sigchld) for flag in NAMESPACES.values()} == {EPERM}
    assert {ask("unshare", flag) for flag in (*NAMESPACES.values(), NEWTIME)} == {EPERM}
    assert ask("unshare", 0x400) == "allow"  # CLONE_FILES
    assert (ask("clone3"), ask("setns")) == (ENOSYS, EPERM)


def test_the_flags_of_clone_are_the_second_argument_on_s390() -> None:
    profile: Any = seccomp_profile("default", machine="s390x")
    assert {rule["args"][0]["index"] for rule in profile["syscalls"] if rule["names"] == ["clone"]} == {1}


def test_personalities() -> None:
    ask = decide(seccomp_profile("default", machine="x86_64"))
    assert {ask("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)} == {"allow"}
    no_randomizing, read_implies_exec, other_system = 0x40000, 0x400000, 1
    assert {ask("personality", value) for value in (no_randomizing, read_implies_exec, other_system)} == {EPERM}


@pytest.mark.parametrize("capability", sorted({name for names in seccomp.BY_CAPABILITY for name in names}))
def test_a_capability_brings_the_calls_that_need_it_but_not_in_strict(capability: str) -> None:
    profile: Any = seccomp_profile("default", machine="x86_64", capabilities={"CAP_KILL", capability})
    allowed = set(profile["syscalls"][0]["names"])
    for enough, group in seccomp.BY_CAPABILITY.items():
        names = set(group.names.split())
        assert names <= allowed if capability in enough else not names & allowed
    strict: Any = seccomp_profile("strict", machine="x86_64", capabilities={capability})
    assert not BY_CAPABILITY & set(strict["syscalls"][0]["names"])


def test_with_cap_sys_admin_namespaces_can_be_made() -> None:
    ask = decide(seccomp_profile("default", machine="x86_64", capabilities={"CAP_SYS_ADMIN"}))
    calls = [("clone", NAMESPACES["user"]), ("unshare", NAMESPACES["net"]), ("clone3",), ("mount",), ("pivot_root",)]
    assert {ask(*call) for call in calls} == {"allow"}
    assert decide(seccomp_profile("strict", machine="x86_64", capabilities={"CAP_SYS_ADMIN"}))("clone3") == ENOSYS


@pytest.mark.parametrize(
    ("machine", "architectures"),
    [
        ("x86_64", ["SCMP_ARCH_X86_64"]),
        ("amd64", ["SCMP_ARCH_X86_64"]),
        ("aarch64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("armv7l", ["SCMP_ARCH_ARM"]),
        ("riscv64", ["SCMP_ARCH_RISCV64"]),
        ("sparc64", None),  # the runtime then makes a filter for its own
    ],
)
def test_architectures(machine: str, architectures: list[str] | None) -> None:
    profile: Any = seccomp_profile("default", machine=machine)
    assert profile.get("architectures") == architectures


def test_choices_of_default_spec() -> None:
    def profile(**keywords: Any) -> Any:
        return default_spec(["true"], rootless=False, **keywords)["linux"].get("seccomp")

    machine = platform.machine()
    given = {"CAP_KILL", "CAP_NET_BIND_SERVICE"}
    default = seccomp_profile("default", machine=machine, capabilities=given)
    assert profile() == profile(seccomp="default") == profile(seccomp=True) == default
    assert profile(seccomp="strict") == seccomp_profile("strict", machine=machine)
    assert profile(seccomp="strict", network="host") == seccomp_profile("strict", machine=machine, only_loopback=False)
    assert profile(seccomp="unconfined") is profile(seccomp=False) is None
    assert "ptrace" in default["syscalls"][0]["names"]
    assert "setns" in profile(capabilities=["CAP_SYS_ADMIN"])["syscalls"][0]["names"]
    own: Any = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}
    before = copy.deepcopy(own)
    made = profile(seccomp=own)
    assert made == own
    made["syscalls"][0]["names"].append("keyctl")
    assert own == before


@pytest.mark.parametrize(
    ("choice", "error", "reason"),
    [
        ("lenient", ValueError, "'default', 'strict', 'unconfined' or a profile, not 'lenient'"),
        (None, TypeError, "seccomp must be a str, a bool or a profile, not NoneType"),
        (1, TypeError, "not int"),
        ({}, ValueError, "seccomp: a profile must have a defaultAction"),
    ],
)
def test_what_is_no_choice_is_refused(choice: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        default_spec(["true"], seccomp=choice)
