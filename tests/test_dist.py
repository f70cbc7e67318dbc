"""What ``make dist`` builds can be published, installed and run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import runc_async

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
RELATIVE = re.compile(r"\]\((?!https?:|#)[^)]+\)")


def run(*command: str | Path, **environment: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """The wheel and the sdist that the checkout gives."""
    for package in ("build", "hatchling", "twine"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is missing: it is one of the development tools, `make setup` installs them")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".")
    wheel, sdist = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return [*wheel, *sdist]


def test_an_index_would_take_both_files(files: Sequence[Path]) -> None:
    said = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)
    assert said.count("PASSED") == 2


def test_the_wheel_has_every_module_and_nothing_else(files: Sequence[Path]) -> None:
    with zipfile.ZipFile(files[0]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = (path for path in (ROOT / "runc_async").rglob("*") if path.suffix in (".py", ".pyi", ".typed"))
    assert found == {str(path.relative_to(ROOT)) for path in package}


def test_the_sdist_has_what_the_tests_need(files: Sequence[Path]) -> None:
    with tarfile.open(files[1]) as sdist:
        found = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "Makefile", ".ci/setup", "docs/index.md", "tests/conftest.py", "hatch_build.py"} <= found
    assert not any("node_modules" in name or name.startswith((".cache", ".venv")) for name in found)


def test_the_description_has_the_version_and_no_relative_link(files: Sequence[Path]) -> None:
    with zipfile.ZipFile(files[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        described = HeaderParser().parsestr(wheel.read(name).decode())
    assert described["Version"] == runc_async.__version__
    assert described["Description-Content-Type"] == "text/markdown"
    page = str(described.get_payload())
    assert page.startswith("# runc_async")
    assert RELATIVE.findall(page) == []


def test_the_installed_command_is_that_version(files: Sequence[Path], tmp_path: Path) -> None:
    # Without --ignore-installed pip removes the package from the environment of the tests.
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed", "--prefix", tmp_path]
    run(sys.executable, "-m", "pip", "install", *options, files[0])
    variables = {"base": str(tmp_path), "platbase": str(tmp_path)}
    installed = sysconfig.get_path("purelib", "posix_prefix", variables)
    said = run(tmp_path / "bin/runc-async", "--version", PYTHONPATH=installed)
    assert said == f"runc-async {runc_async.__version__}\n"
    assert run(tmp_path / "bin/runc-async", "--help", PYTHONPATH=installed).startswith("usage: runc-async ")


PAGE = "see [docs](docs/a.md#b) and ![pic](docs/p.svg), [out](https://example.org), [here](#below)"
FORGE = "https://forge.example/o/n"


@pytest.mark.parametrize(
    ("source", "docs", "pic"),
    [
        (f"{FORGE}/", f"[docs]({FORGE}/blob/v1.2/docs/a.md#b)", f"![pic]({FORGE}/raw/v1.2/docs/p.svg)"),
        (None, "docs", ""),
    ],
)
def test_relative_links_lead_to_the_tag_or_become_text(source: str | None, docs: str, pic: str) -> None:
    pytest.importorskip("hatchling", reason="hatchling is missing: `make setup` installs it")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.absolute(PAGE, source, "1.2") == f"see {docs} and {pic}, [out](https://example.org), [here](#below)"
