"""Where a container's cgroups are: what is computed beforehand, and what the real runtime then does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runc_async._linux import cgroup_paths
from runc_async._linux.cgroup_paths import container_cgroups
from runc_async._linux.cgroups import Hierarchy, hierarchies

from .._ordinary import USER

V1 = Hierarchy(1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/")
SYSTEMD = Hierarchy(1, ("name=systemd",), "/sys/fs/cgroup/systemd", "/")
NAMED = Hierarchy(1, ("name=mine",), "/sys/fs/cgroup/mine", "/")
HYBRID = Hierarchy(2, (), "/sys/fs/cgroup/unified", "/")
V2 = Hierarchy(2, (), "/sys/fs/cgroup", "/")


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets which hierarchies are mounted; the caller is in the cgroup ``/a/b`` of each."""

    def choose(*mounted: Hierarchy) -> None:
        monkeypatch.setattr(cgroup_paths, "hierarchies", lambda: mounted)
        own = {hierarchy.controllers: "/a/b" for hierarchy in mounted}
        monkeypatch.setattr(cgroup_paths, "parse_membership", lambda _: own)

    return choose


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to go to another cgroup: run the suite as root")
@pytest.mark.parametrize("where", ["here", "below", "namespace", "rootless"])
def test_the_runtime_makes_the_cgroups_that_were_expected_and_no_others(
    runtime_path: Path, runtime_name: str, rootfs: Path, container_id: str, where: str
) -> None:
    program = [sys.executable, "-m", "tests.linux._placement", runtime_path, runtime_name, container_id, rootfs, where]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    compared = 0
    for found in results:
        if "failure" in found:  # crun looks below the top alone, where another user may make none
            assert (runtime_name, where) == ("crun", "rootless"), found
            continue
        assert sorted(found["actual"]) == sorted({*found["existing"]} - {*found["before"]}), found
        compared += bool(found["actual"])
    is_v1 = any(hierarchy.version == 1 for hierarchy in hierarchies())
    assert compared >= (0 if runtime_name == "crun" and where == "rootless" and is_v1 else 1), results


@pytest.mark.parametrize(
    ("path", "runc", "crun"),
    [
        (None, "a/b/id", "id"),
        ("/x/y", "x/y", "x/y"),
        ("x/y", "a/b/x/y", "x/y"),
        ("../x", "a/b/x", None),
        ("/", None, None),
        (".", None, None),
    ],
)
def test_on_v1_in_every_hierarchy(path: str | None, runc: str | None, crun: str | None, layout: Any) -> None:
    layout(V1, SYSTEMD)
    for runtime, inner in (("runc", runc), ("crun", crun)):
        expected = [] if inner is None else [f"{mounted.point}/{inner}" for mounted in (V1, SYSTEMD)]
        assert container_cgroups("id", path, runtime) == expected


def test_on_hybrid_also_in_v2_and_there_from_the_top(layout: Any) -> None:
    layout(V1, NAMED, HYBRID)
    assert container_cgroups("id", None, "runc") == ["/sys/fs/cgroup/cpu,cpuacct/a/b/id", "/sys/fs/cgroup/unified/id"]
    assert container_cgroups("id", None, "crun") == [
        *("/sys/fs/cgroup/cpu,cpuacct/id", "/sys/fs/cgroup/mine/id", "/sys/fs/cgroup/unified/id")
    ]


def test_on_v2_runc_makes_it_beside_the_callers_and_crun_at_the_top_if_it_may(layout: Any) -> None:
    layout(V2, V1)
    assert container_cgroups("id", None, "runc") == ["/sys/fs/cgroup/a/id"]
    assert container_cgroups("id", "x", "runc") == ["/sys/fs/cgroup/a/x"]
    assert container_cgroups("id", None, "crun") == ["/sys/fs/cgroup/id", "/sys/fs/cgroup/a/id"]
    assert container_cgroups("id", "x", "crun") == ["/sys/fs/cgroup/x"]


def test_the_callers_own_cgroup_and_those_above_are_never_a_containers(layout: Any) -> None:
    layout(V2)
    for path in ("/a", "/a/b", "/", "/a/b/../"):
        assert container_cgroups("id", path, "runc") == container_cgroups("id", path, "crun") == []
    assert container_cgroups("id", "/a/b/c", "runc") == ["/sys/fs/cgroup/a/b/c"]
    assert container_cgroups("id", "/a/bc", "runc") == ["/sys/fs/cgroup/a/bc"]


def test_of_another_runtime_nothing_is_known(layout: Any) -> None:
    layout(V2)
    assert container_cgroups("id", "/x", "runsc") == []


@pytest.mark.parametrize(
    ("path", "runtime", "inner"),
    [
        (None, "runc", "system.slice/runc-id.scope"),
        ("a-b-c.slice:pre:name", "runc", "a.slice/a-b.slice/a-b-c.slice/pre-name.scope"),
        (":pre:name", "runc", "system.slice/pre-name.scope"),
        ("a.slice:pre:name.slice", "runc", "a.slice/name.slice"),
        ("-.slice:pre:name", "runc", "pre-name.scope"),
        ("/a/path", "runc", None),
        (None, "crun", "system.slice/crun-id.scope"),
        ("a-b.slice:pre:name", "crun", "a.slice/a-b.slice/pre-name.scope"),
        (":pre:name", "crun", "system.slice/pre-name.scope"),
    ],
)
def test_units_of_systemd(path: str | None, runtime: str, inner: str | None, layout: Any) -> None:
    layout(V1, HYBRID)
    found = container_cgroups("id", path, runtime, systemd_cgroup=True, rootless=True)
    assert found == ([] if inner is None else [f"{mounted.point}/{inner}" for mounted in (V1, HYBRID)])


def test_units_of_a_users_systemd(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layout(V2)
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    manager = f"/sys/fs/cgroup/user.slice/user-{USER}.slice/user@{USER}.service"
    assert container_cgroups("id", None, "runc", systemd_cgroup=True) == [f"{manager}/user.slice/runc-id.scope"]
    assert container_cgroups("id", ":p:n", "crun", systemd_cgroup=True) == [f"{manager}/user.slice/p-n.scope"]
    assert container_cgroups("id", None, "crun", systemd_cgroup=True) == [
        *(f"{manager}/app.slice/crun-id.scope", f"{manager}/crun-id.scope")
    ]
