"""The documentation builds, and every page has the version, the search and working links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import runc_async

from .test_blocks import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as HTML. A warning of Sphinx, such as a link to nowhere, is an error."""
    pytest.importorskip("sphinx", reason="sphinx is missing: `make setup` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", ROOT / "docs", folder]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=110, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_has_the_version_and_the_search(site: Path) -> None:
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert len(pages) > 20
    for page in pages:
        html = (site / page.relative_to(ROOT / "docs")).with_suffix(".html").read_text()
        assert f"runc_async {runc_async.__version__}" in html, page
        assert re.search(r'<form[^>]* action="[^"]*search\.html"', html), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    """Also in the README, which Sphinx does not read."""
    for target, heading in LINK.findall(page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{target}#{heading}"
