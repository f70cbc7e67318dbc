"""What `default_spec` makes of its keywords, and what it refuses, with which reason."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runc_async import default_spec


@pytest.fixture(autouse=True)
def no_default_limit_where_there_can_be_none() -> None:
    """Nothing runs here: the limit is looked at wherever the tests are run."""


def spec(args: Any = ("true",), **keywords: Any) -> dict[str, Any]:
    made: Any = default_spec(args, **{"rootless": False, **keywords})
    assert json.loads(json.dumps(made)) == made  # plain JSON, through and through
    return made


def mount(made: dict[str, Any], destination: str) -> dict[str, Any]:
    return next(mount for mount in made["mounts"] if mount["destination"] == destination)


def test_safe_by_default() -> None:
    made = spec(["sh", "-c", "true"])
    process, linux = made["process"], made["linux"]
    assert process["args"] == ["sh", "-c", "true"]
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["cwd"] == "/"
    assert {tuple(names) for names in process["capabilities"].values()} == {("CAP_KILL", "CAP_NET_BIND_SERVICE")}
    assert made["root"]["readonly"] is True
    assert made["hostname"] == "container"
    assert {n["type"] for n in linux["namespaces"]} == {"pid", "mount", "ipc", "uts", "cgroup", "network"}
    assert not any("path" in namespace for namespace in linux["namespaces"])
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 256}}
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "bpf" not in linux["seccomp"]["syscalls"][0]["names"]
    tmp = mount(made, "/tmp")
    assert tmp["type"] == "tmpfs"
    assert f"size={64 << 20}" in tmp["options"]
    assert not [m for m in made["mounts"] if m.get("source", "").startswith("/")]  # nothing of the host


def test_env_adds_to_a_path_and_may_replace_it() -> None:
    assert spec(env={"A": "1", "B": "x=y"})["process"]["env"][1:] == ["A=1", "B=x=y"]
    assert spec(env={"PATH": "/x"})["process"]["env"] == ["PATH=/x"]
    assert spec()["process"]["env"][0].startswith("PATH=/usr/local/sbin:")


def test_cwd_may_be_a_path_object() -> None:
    assert spec(cwd=Path("/work/here"))["process"]["cwd"] == "/work/here"


@pytest.mark.parametrize(
    ("user", "uid", "gid"), [(None, 0, 0), (1000, 1000, 1000), ("1000", 1000, 1000), ("1000:100", 1000, 100)]
)
def test_user(user: Any, uid: int, gid: int) -> None:
    assert spec(user=user)["process"]["user"] == {"uid": uid, "gid": gid}


def test_groups_beside_the_user() -> None:
    user = spec(user=1000, additional_gids=[5, 20])["process"]["user"]
    assert user == {"uid": 1000, "gid": 1000, "additionalGids": [5, 20]}


def test_another_user_than_root_has_no_capabilities_but_those_asked_for_which_outlive_exec() -> None:
    assert not any(spec(user=1000)["process"]["capabilities"].values())
    sets = spec(user=1000, capabilities=["CAP_NET_RAW"])["process"]["capabilities"]
    every = ("bounding", "effective", "permitted", "inheritable", "ambient")
    assert sets == {name: ["CAP_NET_RAW"] for name in every}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (256 << 20, 256 << 20),
        ("268435456", 256 << 20),
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("256 MB", 256 << 20),
        ("256MiB", 256 << 20),
        ("262144k", 256 << 20),
        ("1.5G", 3 << 29),
        ("0.5g", 1 << 29),
        ("2T", 2 << 40),
        ("9007199254740993", 9007199254740993),  # no float in between
    ],
)
def test_memory_and_tmp_take_human_units(text: Any, size: int) -> None:
    made = spec(memory=text, tmp=text)
    assert made["linux"]["resources"]["memory"] == {"limit": size}
    assert f"size={size}" in mount(made, "/tmp")["options"]


def test_swap_is_memory_and_swap_together() -> None:
    assert spec(memory="1G", swap="1G")["linux"]["resources"]["memory"] == {"limit": 1 << 30, "swap": 1 << 30}


@pytest.mark.parametrize(("cpus", "quota"), [(0.5, 50_000), (1, 100_000), (2.5, 250_000), (0.29, 29_000), (0.01, 1000)])
def test_cpus_become_a_quota(cpus: float, quota: int) -> None:
    assert spec(cpus=cpus)["linux"]["resources"]["cpu"] == {"quota": quota, "period": 100_000}


def test_pids() -> None:
    assert spec(pids=12)["linux"]["resources"]["pids"] == {"limit": 12}
    assert "pids" not in spec(pids=None)["linux"]["resources"]
    assert spec(pids="auto")["linux"]["resources"]["pids"] == {"limit": 256}


def test_mounts_as_strings_and_as_objects(tmp_path: Path) -> None:
    own = {"destination": "/cache", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
    made = spec(mounts=[f"{tmp_path}:/a", f"{tmp_path}:/b:ro", f"{tmp_path}:/c:rw", own])
    assert [(m["destination"], m["options"][4:]) for m in made["mounts"][-4:-1]] == [
        ("/a", ["rw"]),
        ("/b", ["ro", "rro"]),
        ("/c", ["rw"]),
    ]
    assert all(m["source"] == str(tmp_path) for m in made["mounts"][-4:-1])
    assert all(m["options"][:4] == ["rbind", "rprivate", "nosuid", "nodev"] for m in made["mounts"][-4:-1])
    assert made["mounts"][-1] == {**own, "options": ["size=1m", "nr_inodes=1024"]}
    assert own["options"] == ["size=1m"]


def test_the_short_switches() -> None:
    made = spec(
        hostname="box-1",
        readonly=False,
        network="host",
        terminal=True,
        capabilities=["CAP_CHOWN", "CAP_CHOWN"],
        seccomp=False,
        annotations={"org.example": "x"},
    )
    assert made["hostname"] == "box-1"
    assert made["root"]["readonly"] is False
    assert "network" not in {namespace["type"] for namespace in made["linux"]["namespaces"]}
    assert made["process"]["terminal"] is True
    assert "TERM=xterm" in made["process"]["env"]
    assert made["process"]["capabilities"]["effective"] == ["CAP_CHOWN"]
    assert "seccomp" not in made["linux"]
    assert made["annotations"] == {"org.example": "x"}


def test_rootless_maps_the_caller_to_root_and_limits_nothing_unless_asked() -> None:
    made = spec(rootless=True)
    assert {"type": "user"} in made["linux"]["namespaces"]
    assert made["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert made["linux"]["gidMappings"] == [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    assert "pids" not in made["linux"]["resources"]
    assert not [o for m in made["mounts"] for o in m.get("options", []) if o.startswith("gid=")]
    assert spec(rootless=True, pids=256)["linux"]["resources"]["pids"] == {"limit": 256}  # asked for: kept


def test_rootless_by_itself_is_whether_the_caller_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, mapped in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert ("uidMappings" in spec(rootless=None)["linux"]) is mapped


def test_changing_one_changes_no_other() -> None:
    own: Any = {"destination": "/cache", "type": "tmpfs", "options": ["size=1m"]}
    args = ["true"]
    before = json.dumps(spec(args, mounts=[own]))
    made = spec(args, mounts=[own])

    def spoil(value: Any) -> None:
        for inner in list(value.values() if isinstance(value, dict) else value):
            if isinstance(inner, dict | list):
                spoil(inner)
        value.clear()

    spoil(made)
    assert json.dumps(spec(args, mounts=[own])) == before
    sets = spec()["process"]["capabilities"]
    sets["bounding"].clear()
    assert sets["effective"]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"args": []}, ValueError, "args must begin with a program"),
    ({"args": [""]}, ValueError, "args must begin with a program"),
    ({"args": "sh -c true"}, TypeError, "not one string"),
    ({"args": b"sh"}, TypeError, "not one string"),
    ({"args": ["sh", 1]}, TypeError, "args must be str, not int"),
    ({"args": ["sh", "a\0b"]}, ValueError, "args: has a NUL"),
    ({"env": {"A=B": "x"}}, ValueError, "env: not a possible variable"),
    ({"env": {"A": 1}}, TypeError, "env: names and values must be str"),
    ({"cwd": "work"}, ValueError, "cwd must be absolute"),
    ({"cwd": ""}, ValueError, "cwd must be absolute"),
    ({"cwd": "/a\0"}, ValueError, "cwd: has a NUL"),
    ({"user": "nobody"}, ValueError, "in numbers, not 'nobody'"),
    ({"user": -1}, ValueError, "in numbers"),
    ({"user": True}, ValueError, "in numbers"),
    ({"user": (1 << 32) - 1}, ValueError, "not a possible id"),
    ({"user": f"0:{1 << 32}"}, ValueError, "not a possible id"),
    ({"additional_gids": [-1]}, ValueError, "not a possible id"),
    ({"additional_gids": ["5"]}, TypeError, "additional_gids must be numbers"),
    ({"memory": "lots"}, ValueError, 'with a unit such as "256M"'),
    ({"memory": "256X"}, ValueError, "with a unit"),
    ({"memory": "-1"}, ValueError, "with a unit"),
    ({"memory": -1}, ValueError, "memory must be from 4194304"),
    ({"memory": 0}, ValueError, "memory must be from"),
    ({"memory": "2M"}, ValueError, "memory must be from"),
    ({"memory": 1 << 63}, ValueError, "memory must be from"),
    ({"memory": 1e9}, TypeError, "not float"),
    ({"memory": True}, TypeError, "not bool"),
    ({"swap": "1G"}, ValueError, "needs memory"),
    ({"swap": "1G", "memory": "2G"}, ValueError, "at least as much"),
    ({"cpus": 0}, ValueError, "cpus must be from 0.01"),
    ({"cpus": -1}, ValueError, "cpus must be from 0.01"),
    ({"cpus": 0.001}, ValueError, "cpus must be from 0.01"),
    ({"cpus": math.nan}, ValueError, "cpus must be from 0.01"),
    ({"cpus": math.inf}, ValueError, "cpus must be from 0.01"),
    ({"cpus": 1e6}, ValueError, "to 8192"),
    ({"cpus": "0.5"}, TypeError, "cpus must be a number, not str"),
    ({"cpus": True}, TypeError, "cpus must be a number"),
    ({"pids": 0}, ValueError, "pids must be from 1"),
    ({"pids": -1}, ValueError, "None means no limit"),
    ({"pids": (1 << 22) + 1}, ValueError, "pids must be from 1 to 4194304"),
    ({"pids": 1.5}, TypeError, "pids must be a number"),
    ({"pids": "many"}, TypeError, "pids must be a number"),
    ({"mounts": ["/nowhere/at/all:/x"]}, ValueError, "is not an absolute path of something that exists"),
    ({"mounts": ["etc:/x"]}, ValueError, "not an absolute path"),
    ({"mounts": ["/etc"]}, ValueError, "the destination must be an absolute path"),
    ({"mounts": ["/etc:x"]}, ValueError, "the destination must be an absolute path"),
    ({"mounts": ["/etc:/"]}, ValueError, "below /"),
    ({"mounts": ["/etc:/./"]}, ValueError, "below /"),
    ({"mounts": ["/etc:/a/../../b"]}, ValueError, r"without \.\."),
    ({"mounts": ["/etc:/x:rx"]}, ValueError, "neither ro nor rw"),
    ({"mounts": [{"type": "tmpfs"}]}, ValueError, "the destination must be"),
    ({"mounts": [("/etc", "/x")]}, TypeError, "OCI mount objects or str, not tuple"),
    ({"hostname": ""}, ValueError, "hostname must be"),
    ({"hostname": "a b"}, ValueError, "hostname must be"),
    ({"hostname": "a" * 65}, ValueError, "1 to 64"),
    ({"network": "bridge"}, ValueError, "network must be 'none', 'host' or the path .* not 'bridge'"),
    ({"capabilities": ["NET_ADMIN"]}, ValueError, "such as CAP_NET_ADMIN"),
    ({"capabilities": ["CAP_NET_ADMlN"]}, ValueError, r"as in capabilities\(7\)"),
    ({"capabilities": "CAP_KILL"}, ValueError, "capabilities must be names"),
    ({"tmp": "1"}, ValueError, "tmp must be from 4096"),
    ({"annotations": {"a": 1}}, TypeError, "annotations must be str"),
    ({"network": "/nowhere/net"}, ValueError, "that exists, not '/nowhere/net'"),
    ({"network": 7}, TypeError, "network must be str or PathLike, not int"),
    ({"init": "/nowhere/init"}, ValueError, "init '/nowhere/init' is not an absolute path of something that exists"),
    ({"init": "/etc/passwd"}, ValueError, "init must be a program"),
    ({"init": "/etc"}, ValueError, "init must be a program"),
    ({"init": sys.executable}, ValueError, "init must be a static program"),
    ({"init": 1}, TypeError, "init must be str"),
    ({"rlimits": {"NOFILE": 1}}, ValueError, "names such as RLIMIT_NOFILE"),
    ({"rlimits": {"RLIMIT_NOFILE": (2, 1)}}, ValueError, "RLIMIT_NOFILE: the soft limit is greater than the hard"),
    ({"rlimits": {"RLIMIT_NOFILE": (1, 2, 3)}}, ValueError, "a soft and a hard one"),
    ({"rlimits": {"RLIMIT_NOFILE": -2}}, ValueError, "RLIMIT_NOFILE must be at least 0"),
    ({"rlimits": {"RLIMIT_NOFILE": "7"}}, TypeError, "RLIMIT_NOFILE must be int"),
    ({"rlimits": ["RLIMIT_NOFILE"]}, TypeError, "a mapping of names to limits"),
    ({"devices": "/dev/null"}, TypeError, "devices must be a sequence of str"),
    ({"devices": [7]}, TypeError, "devices must be str"),
    ({"devices": ["/etc/passwd"]}, ValueError, "'/etc/passwd' is not a device"),
    ({"devices": ["/dev/nothing-there"]}, ValueError, "'/dev/nothing-there': No such file"),
    ({"devices": ["null"]}, ValueError, "absolute path"),
    ({"devices": ["/dev/null:/dev/x:x"]}, ValueError, "of r, w and m, not 'x'"),
    ({"devices": ["/dev/null:/dev/../x"]}, ValueError, r"without \.\."),
    ({"sysctl": {"kernel.panic": 1}}, ValueError, "kernel.panic does not belong to a namespace"),
    ({"sysctl": {"net.core.somaxconn": 7}, "network": "host"}, ValueError, "would change the host, since network is"),
    ({"sysctl": {"net.core.somaxconn": 7.5}}, TypeError, "sysctl: net.core.somaxconn must be str or int"),
    ({"sysctl": {"net/../../x": 7}}, ValueError, "cannot be a name"),
    ({"sysctl": {"net.core.somaxconn": "1\n2"}}, ValueError, "cannot be a value"),
    ({"sysctl": "net.core.somaxconn=1"}, TypeError, "a mapping of names to values"),
    ({"resolv_conf": "etc/resolv.conf"}, ValueError, "resolv_conf 'etc/resolv.conf' is not an absolute path"),
    ({"hosts": "/nowhere/hosts"}, ValueError, "hosts '/nowhere/hosts' is not an absolute path of something"),
    ({"hosts": 7}, TypeError, "hosts must be a path, not int"),
    ({"user_namespace": range(0)}, ValueError, "must be a range of ids on the host"),
    ({"user_namespace": range(10)}, ValueError, "id 0 in it, which is root of the host"),
    ({"user_namespace": range(1000, 2000, 2)}, ValueError, "must be a range of ids"),
    ({"user_namespace": range(1 << 31, (1 << 32) + 5)}, ValueError, "must be a range of ids"),
    ({"user_namespace": "100000:65536"}, TypeError, "user_namespace must be a range of ids"),
    ({"user_namespace": range(1000, 1010), "user": 10}, ValueError, "ids 0 to 9 in the container, not 10"),
    ({"user_namespace": range(1000, 1010), "additional_gids": [10]}, ValueError, "ids 0 to 9 in the container"),
    ({"apparmor": ""}, ValueError, "apparmor is empty"),
    ({"apparmor": 7}, TypeError, "apparmor must be str"),
    ({"nr_inodes": 0}, ValueError, "nr_inodes must be at least 16"),
    ({"nr_inodes": "1k"}, TypeError, "nr_inodes must be int"),
    ({"rootless": True, "user": 1000}, ValueError, "one user and one group"),
    ({"rootless": True, "additional_gids": [5]}, ValueError, "only the caller's groups"),
]


@pytest.mark.parametrize(("keywords", "error", "reason"), REFUSED)
def test_refused_with_a_reason(keywords: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        spec(**keywords)


# -- every mount is private, every tmpfs has a limit of files --------------------------------------------------


def test_every_tmpfs_has_a_limit_of_files() -> None:
    def limits(**keywords: Any) -> dict[str, list[str]]:
        mounts = spec(**keywords)["mounts"]
        return {
            each["destination"]: [option for option in each["options"] if option.startswith("nr_inodes=")]
            for each in mounts
            if each["type"] == "tmpfs"
        }

    def tmpfs(*options: str) -> dict[str, Any]:
        return {"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": list(options)}

    by_itself = {"/dev": ["nr_inodes=1024"], "/dev/shm": ["nr_inodes=16384"], "/tmp": ["nr_inodes=16384"]}
    assert limits() == by_itself
    assert limits(tmp="1G")["/tmp"] == ["nr_inodes=262144"]
    assert limits(nr_inodes=99) == {key: ["nr_inodes=99"] for key in by_itself}
    assert limits(mounts=[tmpfs()])["/own"] == ["nr_inodes=65536"]
    assert limits(mounts=[tmpfs("size=1G")])["/own"] == ["nr_inodes=262144"]
    assert limits(mounts=[tmpfs("nr_inodes=7")], nr_inodes=99)["/own"] == ["nr_inodes=7"]


@pytest.mark.parametrize(("release", "recursive"), [("5.12.0-1-amd64", True), ("6.1", True), ("5.11.22", False)])
def test_the_hosts_sys_is_read_only_all_the_way_down_or_masked(
    monkeypatch: pytest.MonkeyPatch, release: str, recursive: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", release, "#1", "x86_64")))
    made = spec(rootless=True, network="host")
    sys_mount = mount(made, "/sys")
    assert (sys_mount["source"], "rprivate" in sys_mount["options"]) == ("/sys", True)
    assert ("rro" in sys_mount["options"]) is recursive
    assert ({"/sys/fs", "/sys/kernel"} <= set(made["linux"]["maskedPaths"])) is not recursive
    made = spec(rootless=True)
    assert mount(made, "/sys")["type"] == "sysfs"
    assert "/sys/fs" not in made["linux"]["maskedPaths"]


# -- init -----------------------------------------------------------------------------------------------------


def test_a_missing_init_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runc_async._bundle.mounts.INITS", ("tini-static", "tini"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install the Debian package tini or catatonit"):
        spec(init=True)
    (tmp_path / "tini").write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2\0")
    (tmp_path / "tini").chmod(0o755)
    with pytest.raises(FileNotFoundError, match="no static init was found"):
        spec(init=True)


def test_an_init_runs_the_program(tmp_path: Path) -> None:
    own = tmp_path / "own-init"
    own.write_bytes(b"\x7fELF static")
    own.chmod(0o755)
    made = spec(["sh", "-c", "true"], init=own)
    assert made["process"]["args"] == ["/dev/init", "--", "sh", "-c", "true"]
    there = mount(made, "/dev/init")
    assert (there["source"], "ro" in there["options"]) == (str(own), True)
    assert spec(["true"], init=False)["process"]["args"] == ["true"]
