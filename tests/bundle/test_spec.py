"""The types of config.json are complete, and reading and writing one loses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runc_async import Bundle, Runc, Spec, default_spec

DATA = Path(__file__).parents[1] / "data"
# specs-go/config.go of the specification's version 1.3.0: the path of every field that Linux has, and its type.
FIELDS = dict(line.split() for line in (DATA / "oci-fields.txt").read_text().splitlines())
# Of other platforms, or of versions 1.1 and 1.2 only; a document that has them is typed, too.
OTHER = {
    "process.commandLine": "str",
    "process.user.username": "str",
    "linux.intelRdt.enableCMT": "bool",
    "linux.intelRdt.enableMBM": "bool",
    "vm{}": "Any",
}
VALUES: dict[str, object] = {"str": "text", "int": 7, "bool": True}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def fields(hint: Any, path: str = "") -> dict[str, str]:
    """The paths of all that a type names, as in `FIELDS`."""
    origin = get_origin(hint)
    if origin in (list, dict):
        return fields(get_args(hint)[-1], path + ("[]" if origin is list else "{}"))
    if typing.is_typeddict(hint):
        found = {}
        for name, inner in get_type_hints(hint).items():
            found |= fields(inner, f"{path}.{name}" if path else name)
        return found
    return {path: "str" if origin is Literal else getattr(hint, "__name__", "Any")}


def populated() -> dict[str, Any]:
    """A document that has every field of the specification."""
    document: dict[str, Any] = {}
    for path, kind in FIELDS.items():
        here = document
        *parents, last = path.split(".")
        for part in parents:
            name = part.rstrip("[]{}")
            if part.endswith("[]"):
                here = here.setdefault(name, [{}])[0]
            elif part.endswith("{}"):
                here = here.setdefault(name, {}).setdefault("key", {})
            else:
                here = here.setdefault(name, {})
        value = VALUES[kind]
        here[last.rstrip("[]{}")] = [value] if last.endswith("[]") else {"key": value} if last.endswith("{}") else value
    return document


def unknown(value: Any, hint: Any, path: str = "") -> list[str]:
    """What a document has and the types have not."""
    origin = get_origin(hint)
    if origin is list:
        return [found for inner in value for found in unknown(inner, get_args(hint)[0], f"{path}[]")]
    if origin is dict:
        return [found for inner in value.values() for found in unknown(inner, get_args(hint)[1], f"{path}{{}}")]
    if typing.is_typeddict(hint):
        hints = get_type_hints(hint)
        inside = [
            found for name in value.keys() & hints for found in unknown(value[name], hints[name], f"{path}.{name}")
        ]
        return [f"{path}.{name}" for name in value.keys() - hints] + inside
    return []


def rewritten(folder: Path, document: bytes | dict[str, Any]) -> Any:
    """What there is after a config.json was loaded, one field changed, and saved."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.json"
    config.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    before = json.loads(config.read_bytes())

    async def change() -> None:
        bundle = Bundle.load(folder)
        bundle.spec["hostname"] = "changed"
        await bundle.save()

    anyio.run(change)
    after = json.loads(config.read_bytes())
    assert after.pop("hostname") == "changed"
    before.pop("hostname", None)
    return before, after


def test_the_types_name_every_field_of_the_specification_with_its_type_and_nothing_else() -> None:
    assert fields(Spec) == {**FIELDS, **OTHER}


def test_a_document_with_every_field_is_rewritten_without_loss(tmp_path: Path) -> None:
    document = populated()
    assert unknown(document, Spec) == []
    before, after = rewritten(tmp_path / "bundle", document)
    assert after == before


def test_the_specifications_own_example_is_typed_and_rewritten_without_loss(tmp_path: Path) -> None:
    document = (DATA / "oci-example.json").read_bytes()
    # Version 1.0 moved this one into the process; the example still has it.
    assert unknown(json.loads(document), Spec) == [".linux.resources.oomScoreAdj"]
    before, after = rewritten(tmp_path / "bundle", document)
    assert after == before


@pytest.mark.parametrize("rootless", [False, True])
@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_the_runtimes_write_is_typed_and_rewritten_without_loss(
    tmp_path: Path, runtime: str, rootless: bool
) -> None:
    program = shutil.which(runtime)
    if program is None:
        pytest.skip(f"{runtime} is not installed")
    folder = tmp_path / "bundle"
    folder.mkdir()
    anyio.run(lambda: Runc(program).spec(folder, rootless=rootless))
    document = (folder / "config.json").read_bytes()
    assert unknown(json.loads(document), Spec) == []
    before, after = rewritten(folder, document)
    assert after == before


def test_what_default_spec_makes_has_no_field_that_the_specification_has_not() -> None:
    spec = default_spec(["true"], memory="1G", swap="2G", cpus=2, mounts=["/:/host:ro"], annotations={"a": "b"})
    assert unknown(spec, Spec) == []


def test_fields_that_no_specification_has_yet_stay_at_any_depth(tmp_path: Path) -> None:
    vendor = {"io.vendor/x": [1, None, {"deep": [{"deeper": 1.5}]}], "": 2**64 - 1}
    document = populated()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for inner in list(value.values()):
                add(inner)
            value |= vendor
        elif isinstance(value, list):
            for inner in value:
                add(inner)

    add(document)
    before, after = rewritten(tmp_path / "bundle", document)
    assert json.dumps(after).count("io.vendor/x") > 50
    assert json.dumps(after) == json.dumps(before)  # the order, too


@settings(max_examples=60, deadline=None)
@given(extra=st.dictionaries(st.text(), JSON, max_size=5))
def test_any_json_object_is_read_and_written_without_loss(
    tmp_path_factory: pytest.TempPathFactory, extra: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    document = {"ociVersion": "1.2.0", "x": extra, **extra}
    (folder / "config.json").write_text(json.dumps(document))
    anyio.run(Bundle.load(folder).save)
    assert json.dumps(json.loads((folder / "config.json").read_bytes())) == json.dumps(document)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    shutil.rmtree(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\xff", '{"a": 1} {}', '{"a":' * 99999])
def test_what_is_no_json_object_is_refused_with_the_file_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        Bundle.load(tmp_path)


EDITS = """\
from runc_async import Process, Spec, default_spec
spec = default_spec(['true'])
spec['linux']['resources']['memory'] = {'limit': 1 << 30}
spec['linux']['namespaces'] = [n for n in spec['linux']['namespaces'] if n['type'] != 'network']
spec['linux']['namespaces'].append({'type': 'time'})
spec['linux']['maskedPaths'].remove('/proc/keys')
spec['process']['env'].append('A=1')
spec['process']['args'] += ['more']
spec['process']['user']['uid'] = 7
spec['process']['capabilities']['ambient'] = []
spec['mounts'].append({'destination': '/x', 'type': 'tmpfs'})
spec['root']['readonly'] = False
own: Spec = spec
process: Process = {'args': ['true'], 'cwd': '/'}
own['hostnam'] = 'x'  # wrong
spec['linux']['maskedPaths'] = '/proc/kcore'  # wrong
"""


def test_types_are_seen_by_a_type_checker(tmp_path: Path) -> None:
    """What `default_spec` gives can be edited; a misspelt field and a wrong type are found where they are written."""
    for name in ("mypy", "basedpyright"):
        pytest.importorskip(name, reason=f"{name} is missing: `make setup` installs it")
    program = tmp_path / "user.py"
    program.write_text(EDITS)
    wrong = [number for number, line in enumerate(EDITS.splitlines(), 1) if "wrong" in line]
    for checker, found in (
        (["mypy", "--no-incremental", "--strict", "--config-file", ""], ": error:"),
        (["basedpyright", "--level", "error"], " - error:"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *checker, str(program)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [int(line.split(":")[1]) for line in done.stdout.splitlines() if found in line]
        assert sorted(set(lines)) == wrong, done.stdout
