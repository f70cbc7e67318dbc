"""Results: real ones of every runtime, decoded with nothing lost; newer ones; broken ones."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runc_async._models import (
    ContainerState,
    Event,
    Features,
    Result,
    Stats,
    Version,
    decode,
    parse_top,
    parse_version,
    version_number,
)

DATA = Path(__file__).parent / "data" / "runtimes"
SHAPES = {"state": ContainerState, "list": list[ContainerState], "stats": Event, "features": Features, "ps": list[int]}
RUNTIMES = sorted(folder.name for folder in DATA.iterdir())
MAPS = {"annotations", "raw"}
"""What is a mapping of a user's or the kernel's names, where every field is known."""


def samples(runtime: str) -> list[Path]:
    return sorted(path for kind in SHAPES for path in (DATA / runtime).glob(f"{kind}*.json"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def shape(path: Path) -> Any:
    return SHAPES[path.stem.partition("-")[0]]


def lost(document: Any, typed: Any, at: str = "") -> list[str]:
    """What a document says and its typed form, written as JSON again, does not."""
    if isinstance(document, dict) and isinstance(typed, dict):
        return [
            loss
            for key, value in document.items()
            for loss in (lost(value, typed[key], f"{at}.{key}") if key in typed else [f"{at}.{key}"])
        ]
    if isinstance(document, list) and isinstance(typed, list) and len(document) == len(typed):
        return [loss for n, pair in enumerate(zip(document, typed, strict=True)) for loss in lost(*pair, f"{at}[{n}]")]
    return [] if document == typed else [f"{at}: {document!r} is {typed!r}"]


def grown(document: Any, key: str = "") -> Any:
    """A document as a newer runtime may print it: with fields that nobody knows yet, everywhere."""
    if isinstance(document, list):
        return [grown(item) for item in document]
    if not isinstance(document, dict) or key in MAPS:
        return document
    known = {name: grown(value, name) for name, value in document.items()}
    return known if key == "hugetlb" else {**known, "newInVersion9": {"deep": [1, None]}}


def results(decoded: Any) -> list[Result]:
    found = [item for item in (decoded if isinstance(decoded, list) else [decoded]) if isinstance(item, Result)]
    return found + [item.data for item in found if isinstance(item, Event)]


def test_there_are_samples_of_every_runtime_in_both_versions_of_cgroups() -> None:
    assert [runtime.split("-")[0] for runtime in RUNTIMES] == ["crun", "crun", "runc", "runc"]
    for runtime in RUNTIMES:
        stems = {path.stem for path in samples(runtime)}
        assert {"state-v1", "state-v2", "list-v1", "list-v2", "ps-v1", "ps-v2"} <= stems
        assert runtime.startswith("crun") or {"stats-v1", "stats-v2", "features"} <= stems


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_real_result_is_decoded_with_nothing_lost(runtime: str) -> None:
    for path in samples(runtime):
        data = path.read_bytes()
        decoded = decode(shape(path), data)
        assert lost(json.loads(data), json.loads(msgspec.json.encode(decoded))) == [], path
        for result in results(decoded):
            assert lost(result.raw, json.loads(msgspec.json.encode(result))) == [], path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_fields_of_a_newer_runtime_do_no_harm_and_can_be_reached(runtime: str) -> None:
    for path in samples(runtime):
        data = json.dumps(grown(json.loads(path.read_bytes()))).encode()
        decoded = decode(shape(path), data)
        if not path.stem.startswith("ps"):
            assert data.count(b"newInVersion9") > 0
        for result in results(decoded):
            assert result.raw["newInVersion9"] == {"deep": [1, None]}, path


@pytest.mark.parametrize("path", sorted(DATA.glob("*/state-*.json")), ids=name)
def test_the_time_of_a_real_state_is_aware_and_keeps_what_the_runtime_gives(path: Path) -> None:
    state = decode(ContainerState, path.read_bytes())
    assert (state.id, state.status, state.annotations) == ("sample", "running", {"org.example.key": "value"})
    assert state.created.tzinfo is not None
    fraction = state.created_at.partition(".")[2].rstrip("Z")
    assert len(fraction) == 6 if path.parent.name.startswith("crun") else len(fraction) > 6
    assert state.created_ns % 10**9 == int(fraction.ljust(9, "0"))
    assert state.created == datetime.fromisoformat(state.created_at[:19] + "+00:00") + timedelta(
        microseconds=int(fraction.ljust(9, "0")) // 1000
    )


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 999), st.integers(-14 * 60, 14 * 60))
def test_every_rfc_3339_time_is_read_to_the_nanosecond(when: datetime, nanoseconds: int, offset: int) -> None:
    try:
        local = (when + timedelta(minutes=offset)).replace(tzinfo=None)
    except OverflowError:
        return
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = f"{local.isoformat(timespec='microseconds')}{nanoseconds:03}{sign}{minutes // 60:02}:{minutes % 60:02}"
    state = ContainerState(id="x", status="running", created_at=text)
    assert state.created == when
    assert state.created_ns % 1000 == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-24", "2026-11-24T12:00:00", "2026-13-24T12:00:00Z", "0001-01-01T00:00:00+14:00"],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month"):
        _ = ContainerState(id="x", status="running", created_at=text).created
    with pytest.raises(ValueError, match=r"time|month"):
        decode(ContainerState, json.dumps({"id": "x", "status": "running", "created": text}).encode())


# -- statistics --------------------------------------------------------------------------------------------

PSI = {
    kind: {"avg10": n + 0.25, "avg60": n + 0.5, "avg300": n + 0.75, "total": n}
    for n, kind in enumerate(["some", "full"], 1)
}
MEMORY = {"limit": 18446744073709551615, "usage": 2, "max": 3, "failcnt": 4}
BLKIO = ["ServiceBytes", "Serviced", "Queue", "ServiceTime", "WaitTime", "Merged", "Time"]
FULL: dict[str, Any] = {
    "cpu": {
        "usage": {
            "total": 1, "kernel": 2, "user": 3, "percpu": [4, 5], "percpu_kernel": [6, 7], "percpu_user": [8, 9],
        },
        "throttling": {"periods": 1, "throttledPeriods": 2, "throttledTime": 3},
        "psi": PSI,
    },
    "cpuset": {
        "cpus": [0, 1], "cpu_exclusive": 1, "mems": [0], "mem_hardwall": 2, "mem_exclusive": 3, "memory_migrate": 4,
        "memory_spread_page": 5, "memory_spread_slab": 6, "memory_pressure": 7, "sched_load_balance": 8,
        "sched_relax_domain_level": -1,
    },
    "memory": {
        "cache": 1, "usage": MEMORY, "swap": MEMORY, "kernel": MEMORY, "kernelTCP": MEMORY,
        "raw": {"anon": 1, "file": 2}, "psi": PSI,
    },
    "pids": {"current": 1, "limit": 2},
    "blkio": {
        **{f"io{kind}Recursive": [{"major": 8, "minor": 1, "op": "Read", "value": 7}] for kind in BLKIO},
        "sectorsRecursive": [{"major": 8, "value": 1}],
        "psi": PSI,
    },
    "hugetlb": {"2MB": {"usage": 1, "max": 2, "failcnt": 3}},
    "intel_rdt": {
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff", "l3_cache_schema": "L3:0=f",
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100", "mem_bw_schema": "MB:0=20", "schemata": ["L3:0=f", "MB:0=20"],
        "mbm_stats": [{"mbm_total_bytes": 1, "mbm_local_bytes": 2}], "cmt_stats": [{"llc_occupancy": 3}],
    },
    "network_interfaces": [{
        "Name": "eth0", "RxBytes": 1, "RxPackets": 2, "RxErrors": 3, "RxDropped": 4,
        "TxBytes": 5, "TxPackets": 6, "TxErrors": 7, "TxDropped": 8,
    }],
}  # fmt: skip
"""Every field that runc 1.5 knows."""


def test_statistics_have_every_field_of_runc_typed() -> None:
    stats = decode(Stats, json.dumps(FULL).encode())
    assert lost(FULL, json.loads(msgspec.json.encode(stats))) == []
    assert lost(json.loads(msgspec.json.encode(stats)), FULL) == [
        ".blkio.sectorsRecursive[0].minor",
        ".blkio.sectorsRecursive[0].op",
    ]
    assert stats.memory.usage.limit == 2**64 - 1
    assert stats.memory.raw_counters == {"anon": 1, "file": 2}
    assert stats.cpu.psi is not None
    assert (stats.cpu.psi.full.avg300, stats.cpu.throttling.throttled_time) == (2.75, 3)
    assert stats.hugetlb["2MB"].failcnt == 3
    assert [entry.op for entry in stats.blkio.io_queue_recursive or []] == ["Read"]
    assert stats.intel_rdt.schemata == ["L3:0=f", "MB:0=20"]
    assert [face.rx_dropped for face in stats.network_interfaces or []] == [4]


def test_statistics_of_both_versions_of_cgroups_say_what_each_has() -> None:
    found = {name(path): decode(Event, path.read_bytes()).data for path in sorted(DATA.glob("*/stats-*.json"))}
    for sample, stats in found.items():
        assert stats.cpu.usage.total > 0, sample
        assert stats.pids.current == 1, sample
        if sample.endswith("v1"):
            assert stats.memory.usage.limit == 64 << 20
            assert stats.memory.raw_counters["pgfault"] > 0
            assert stats.cpu.usage.percpu
        else:
            assert set(stats.hugetlb) == {"1GB", "2MB"}
    newest = found["runc-1.3.6/stats-v2"]
    assert newest.cpu.psi.some.total > 0
    assert newest.memory.psi is not None
    assert newest.blkio.psi is not None


def test_an_event_without_data_and_one_of_a_new_kind() -> None:
    assert decode(Event, b'{"type":"oom","id":"x"}').data is None
    event = decode(Event, b'{"type":"new","id":"x","data":{"a":[1]},"more":2}')
    assert (event.data, event.raw["more"]) == ({"a": [1]}, 2)


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", '{"id":"x"}', '{"type":1,"id":"x"}', '{"type":"stats","id":"x"}',
     '{"type":"stats","id":"x","data":5}', '{"type":"stats","id":"x","data":{"pids":{"current":"many"}}}'],
)  # fmt: skip
def test_a_broken_event_fails_when_it_is_decoded(line: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(Event, line.encode())


def test_no_containers_are_an_empty_list() -> None:
    assert decode(list[ContainerState], b"null") == decode(list[ContainerState], b"[]") == []


JSON = st.recursive(st.none() | st.integers() | st.text(), st.lists)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_no_result_is_refused_in_one_way(data: bytes) -> None:
    for kind in (ContainerState, Event):
        with pytest.raises(msgspec.DecodeError):
            decode(kind, data)


@pytest.mark.parametrize("kind", [ContainerState, list[ContainerState], Event, Features, list[int]])
def test_brackets_without_end_are_refused_like_anything_else(kind: Any) -> None:
    for data in (b"[" * 200_000, b'{"type":"oom","id":"x","status":"x","data":' + b"[" * 200_000):
        with pytest.raises(msgspec.DecodeError):
            decode(kind, data)


# -- features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DATA.glob("*/features.json")), ids=name)
def test_features_tell_what_a_runtime_can_do(path: Path) -> None:
    features = decode(Features, path.read_bytes())
    assert features.linux is not None
    assert features.linux.cgroup is not None
    assert features.linux.seccomp is not None
    assert (features.linux.cgroup.v1, features.linux.cgroup.v2, features.linux.seccomp.enabled) == (True, True, True)
    assert "prestart" in (features.hooks or [])
    assert "rbind" in (features.mount_options or [])
    if path.parent.name == "crun-1.28":
        assert features.linux.memory_policy is not None
        assert "MPOL_BIND" in (features.linux.memory_policy.modes or [])
    if path.parent.name == "runc-1.1.5":
        assert features.linux.mount_extensions is None  # unknown, not absent


# -- versions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DATA.glob("*/version.txt")), ids=lambda path: path.parent.name)
def test_a_real_version_is_read(path: Path) -> None:
    text = path.read_text()
    version = parse_version(text)
    assert path.parent.name == f"{version.runtime}-{'.'.join(map(str, version.release))}"
    assert f"commit: {version.commit}\n" in text
    assert f"spec: {version.spec}\n" in text
    words = {word.lstrip("+") for word in re.split(r"\s+|: ", text.strip())}
    kept = {word for part in (version.runtime, version.version, version.commit, version.spec) for word in [part]}
    kept |= {word for pair in version.details.items() for part in pair for word in part.split()}
    assert words - kept == {"version", "commit", "spec"}


NVIDIA = """\
NVIDIA Container Runtime version 1.17.8
commit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d
spec: 1.2.1

runc version 1.2.5
commit: v1.2.5-0-g59923ef
spec: 1.2.0
go: go1.23.7
libseccomp: 2.5.5
"""
SYSBOX = """\
sysbox-runc
\tedition: \tCommunity Edition (CE)
\tversion: \t0.6.4
\tcommit: \t1bde6ec9a0b1a4a2d0e2
"""


@pytest.mark.parametrize(
    ("text", "runtime", "release", "spec"),
    [
        ("runsc version 0.0~20221219.0\nspec: 1.0.2-dev\n", "runsc", (0, 0), "1.0.2-dev"),
        ("runsc version release-20260817.0\nspec: 1.2.0\n", "runsc", (), "1.2.0"),
        ("youki version: 0.5.7\ncommit: 0.5.7-dcc125d\n", "youki", (0, 5, 7), ""),
        (
            "kata-runtime  : 3.2.0\n   commit   : 3e06865\n   OCI specs: 1.0.2-dev\n",
            "kata-runtime",
            (3, 2, 0),
            "1.0.2-dev",
        ),
        (NVIDIA, "runc", (1, 2, 5), "1.2.0"),
        (SYSBOX, "sysbox-runc", (0, 6, 4), ""),
        ("warning: old kernel\ncrun version v1.28\nspec: 1.0.0\n", "crun", (1, 28), "1.0.0"),
    ],
)
def test_the_version_of_other_runtimes_and_of_wrappers_is_read(
    text: str, runtime: str, release: tuple[int, ...], spec: str
) -> None:
    version = parse_version(text)
    assert (version.runtime, version.release, version.spec, version.text) == (runtime, release, spec, text)
    assert version_number(text.encode()) == version.version


def test_of_a_wrapper_the_lines_of_the_runtime_count() -> None:
    version = parse_version(NVIDIA)
    assert version.commit == "v1.2.5-0-g59923ef"
    assert version.details == {"go": "go1.23.7", "libseccomp": "2.5.5"}


@pytest.mark.parametrize("text", ["runc", "version 1", "Usage: runc", "\x00\x01", "runc version\n", "a b version 1"])
def test_a_version_of_an_unknown_form_is_kept_as_text(text: str) -> None:
    assert parse_version(text) == Version(runtime="", version="", text=text)
    assert version_number(text.encode()) == ""


@pytest.mark.parametrize("text", ["", "\n"])
def test_no_text_is_not_a_version(text: str) -> None:
    with pytest.raises(ValueError, match="no version was printed"):
        parse_version(text)
    assert version_number(text.encode()) == ""


# -- tables of ps ------------------------------------------------------------------------------------------

PS = """\
UID          PID    PPID  C STIME TTY          TIME CMD
root       17513       1  0 16:05 ?        00:00:00 /bin/sh -c sleep 100 & sleep 100; true
nobody   4194304   17513 12 16:05 pts/3    01:00:00 sleep 100
"""
THREADS = """\
    PID    SPID TTY          TIME CMD
      -      12 ?        00:00:00 -
     12       - ?        00:00:00 a b  c
"""


def test_a_table_keeps_a_command_with_spaces_in_its_last_column() -> None:
    table = parse_top(PS)
    assert table.headers == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [row[-1] for row in table.processes] == ["/bin/sh -c sleep 100 & sleep 100; true", "sleep 100"]
    assert [row[1] for row in table.processes] == ["17513", "4194304"]


def test_a_table_of_threads_and_one_without_pids_are_tables() -> None:
    assert [row[1:] for row in parse_top(THREADS).processes] == [
        ["12", "?", "00:00:00", "-"],
        ["-", "?", "00:00:00", "a b  c"],
    ]
    table = parse_top("COMMAND\nsh -c true\n  sleep 1\n")
    assert (table.headers, table.processes) == (["COMMAND"], [["sh -c true"], ["sleep 1"]])


@given(st.text(alphabet=" \n-P1?", max_size=60) | st.text())
def test_no_table_whatever_is_an_index_error(text: str) -> None:
    try:
        table = parse_top(text)
    except ValueError:
        return
    assert all(len(row) == len(table.headers) for row in table.processes)
