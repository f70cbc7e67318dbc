"""A valid ``config.json`` is altered in many ways: each rejection is a `BundleError`, on every runtime.

``RUNC_ASYNC_RECORD=1`` records what the runtime says in ``tests/data/runtimes/``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import BundleError, CommandError, Runc
from runc_async._cli.messages import failure, parse_log

from .._cgroups import VERSION_2, needs_controllers
from ..conftest import EVENT_LOOPS
from ..test_errors import remove_cgroups

if TYPE_CHECKING:
    from collections.abc import Callable

    Alteration = Callable[[dict[str, Any]], object]

DATA = Path(__file__).parents[1] / "data/runtimes"
RUNC_1_1, RUNC_1_3, CRUN = "runc 1.1", "runc 1.3", "crun 1.28"


def linux(**parts: Any) -> Alteration:
    return lambda spec: spec["linux"].update(parts)


def process(**parts: Any) -> Alteration:
    return lambda spec: spec["process"].update(parts)


def top(**parts: Any) -> Alteration:
    return lambda spec: spec.update(parts)


def without(*namespaces: str, **parts: Any) -> Alteration:
    def alter(spec: dict[str, Any]) -> None:
        left = [each for each in spec["linux"]["namespaces"] if each["type"] not in namespaces]
        spec["linux"].update(parts, namespaces=left)

    return alter


def namespace(**parts: Any) -> Alteration:
    return lambda spec: spec["linux"]["namespaces"].append(parts)


def network_by(path: str) -> Alteration:
    def alter(spec: dict[str, Any]) -> None:
        without("network")(spec)
        namespace(type="network", path=path)(spec)

    return alter


def seccomp(**parts: Any) -> Alteration:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    return linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{**rule, **parts.pop("rule", {})}], **parts})


def mount(**parts: Any) -> Alteration:
    return lambda spec: spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", **parts})


def hostless(spec: dict[str, Any]) -> None:
    spec["hostname"] = "h"
    without("uts")(spec)


def domainless(spec: dict[str, Any]) -> None:
    spec["domainname"] = "d"
    without("uts")(spec)


ALTERATIONS: dict[str, tuple[Alteration, set[str]]] = {
    "sysctl outside its IPC namespace": (without("ipc", sysctl={"kernel.shmmax": "1000"}), set()),
    "sysctl outside its network namespace": (without("network", sysctl={"net.ipv4.ip_forward": "1"}), set()),
    "sysctl of no namespace": (linux(sysctl={"vm.swappiness": "1"}), set()),
    "sysctl that does not exist": (linux(sysctl={"net.nosuch": "1"}), set()),
    "hostname without a UTS namespace": (hostless, set()),
    "domainname without a UTS namespace": (domainless, {RUNC_1_1}),
    "seccomp: unknown default action": (seccomp(defaultAction="SCMP_ACT_BOGUS"), set()),
    "seccomp: unknown action": (seccomp(rule={"action": "SCMP_ACT_BOGUS"}), set()),
    "seccomp: unknown architecture": (seccomp(architectures=["SCMP_ARCH_BOGUS"]), set()),
    "seccomp: unknown operator": (
        seccomp(rule={"args": [{"index": 0, "value": 1, "op": "SCMP_CMP_BOGUS"}]}),
        set(),
    ),
    "seccomp: a tenth argument": (seccomp(rule={"args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}), set()),
    "seccomp: unknown flag": (seccomp(flags=["SECCOMP_FILTER_FLAG_BOGUS"]), {CRUN}),
    "seccomp: notification without a listener": (seccomp(rule={"action": "SCMP_ACT_NOTIFY"}), {CRUN}),
    "unknown personality": (linux(personality={"domain": "BOGUS"}), {RUNC_1_1}),
    "unknown I/O class": (process(ioPriority={"class": "BOGUS", "priority": 1}), {RUNC_1_1}),
    "I/O priority out of range": (process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 99}), {RUNC_1_1}),
    "CPU affinity that is not a list of CPUs": (process(execCPUAffinity={"initial": "bogus"}), {RUNC_1_1, CRUN}),
    "unknown scheduler": (process(scheduler={"policy": "SCHED_BOGUS"}), {RUNC_1_1}),
    "deadline for a scheduler without": (process(scheduler={"policy": "SCHED_OTHER", "deadline": 5}), {RUNC_1_1, CRUN}),
    "unknown memory policy": (linux(memoryPolicy={"mode": "BOGUS", "nodes": "0"}), {RUNC_1_1, RUNC_1_3}),
    "unknown type of device": (linux(devices=[{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]), {CRUN}),
    "unknown type of device in a cgroup rule": (
        linux(resources={"devices": [{"allow": True, "type": "z", "access": "rwm"}]}),
        {f"{CRUN} on v2"},
    ),
    "unknown propagation": (linux(rootfsPropagation="bogus"), {CRUN}),
    "relative working directory": (process(cwd="tmp"), {CRUN}),
    "empty working directory": (process(cwd=""), set()),
    "no arguments": (process(args=[]), set()),
    "a program without a name": (process(args=[""]), set()),
    "a namespace twice": (namespace(type="pid"), set()),
    "unknown namespace": (namespace(type="bogus"), set()),
    "missing path of a namespace": (network_by("/no/such/namespace"), set()),
    "a file as a namespace": (network_by("/etc/passwd"), set()),
    "a namespace of another type": (network_by("/proc/self/ns/uts"), set()),
    "user namespace without mappings": (namespace(type="user"), {CRUN}),
    "time offsets without a time namespace": (linux(timeOffsets={"monotonic": {"secs": 5}}), {RUNC_1_1}),
    "mount of a missing source": (mount(type="bind", source="/no/such", options=["bind"]), set()),
    "mount of an unknown file system": (mount(type="bogusfs"), set()),
    "mount with an unknown option": (mount(options=["bogusoption"]), set()),
    "unknown resource limit": (process(rlimits=[{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]), set()),
    "soft limit above the hard one": (process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 5}]), set()),
    "no root file system": (lambda spec: spec.pop("root"), set()),
    "missing root file system": (top(root={"path": "/no/such/rootfs"}), set()),
    "a file as the root file system": (top(root={"path": "/etc/passwd"}), set()),
    "missing program of a hook": (top(hooks={"createRuntime": [{"path": "/no/such/hook"}]}), set()),
    "impossible memory limit": (linux(resources={"memory": {"limit": -5}}), set()),
    "impossible CPU period": (linux(resources={"cpu": {"period": 1, "quota": 1}}), set()),
    "a unified resource that is a path": (linux(resources={"unified": {"../x": "1"}}), set()),
    "unknown SELinux label": (process(selinuxLabel="bogus"), set()),
    "impossible OOM score": (process(oomScoreAdj=5000), set()),
    "a number as an annotation": (top(annotations={"a": 5}), set()),
    "a word as arguments": (process(args="true"), {CRUN}),
    "a negative user": (process(user={"uid": -1, "gid": 0}), set()),
    "a list as the Linux part": (top(linux=[]), set()),
}
"""What is altered, and which runtimes accept that."""

NEEDS = {"impossible memory limit": ["memory"], "impossible CPU period": ["cpu"]}
"""Cgroup controllers that an alteration needs."""
TELL_NO_REASON = {("missing program of a hook", CRUN)}
"""Rejections whose message also other failures have: they stay a plain `CommandError`."""
assert len(ALTERATIONS) > 30


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("anyio_backend", "name"),
    [(list(EVENT_LOOPS)[n % len(EVENT_LOOPS)], name) for n, name in enumerate(ALTERATIONS)],
    indirect=["anyio_backend"],
)
async def test_a_rejected_config_is_a_bundle_error(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, name: str
) -> None:
    alter, accepted_by = ALTERATIONS[name]
    found = await runc.version()
    runtime = f"{found.runtime} {'.'.join(map(str, found.release[:2]))}"
    needs_controllers(*NEEDS.get(name, ()))
    bundle = make_bundle("true", spec=alter)
    if accepted_by & {runtime, f"{runtime} on v2" if VERSION_2 else ""}:
        await runc.create(container_id, bundle)
        await runc.delete(container_id, force=True)
        return
    if (name, runtime) in TELL_NO_REASON:
        with pytest.raises(CommandError) as caught:
            await runc.create(container_id, bundle)
        assert type(caught.value) is CommandError
        return
    for call in (runc.create, runc.run):
        with pytest.raises(CommandError) as rejected:
            await call(container_id, bundle)
        # A namespace that runc's first process cannot enter: now and then runc does not read the reason in time.
        lost = "namespace" in name and "from pipe: EOF" in rejected.value.message
        assert lost or isinstance(rejected.value, BundleError), rejected.value
        remove_cgroups(container_id)  # crun leaves those whose limits it could not set
    assert rejected.value.message.strip()
    if os.environ.get("RUNC_ASYNC_RECORD"):
        path = DATA / f"{found.runtime}-{'.'.join(map(str, found.release))}" / "rejections.json"
        said = json.loads(path.read_text()) if path.exists() else {}
        said[name] = re.sub(r"/tmp/[^\s`'\":]*/(state|bundle)(-\w+)?(?=[/`':])", r"/\1", rejected.value.message)
        path.write_text(json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("path", sorted(DATA.glob("*/rejections.json")), ids=lambda path: path.parent.name)
def test_what_each_runtime_says_of_a_rejected_config_is_a_bundle_error(path: Path) -> None:
    said = json.loads(path.read_text())
    runtime = re.sub(r"-(\d+\.\d+).*", r" \1", path.parent.name)
    assert {*said} == {
        name for name, (_, by) in ALTERATIONS.items() if runtime not in by and (name, runtime) not in TELL_NO_REASON
    }
    assert len(said) > 30
    for name, message in said.items():
        log = parse_log(json.dumps({"level": "error", "msg": message}).encode())
        assert type(failure(["runc", "create", "x"], 1, log=log)) is BundleError, name
