"""How the documentation is built: `make docs`."""

from __future__ import annotations

import os
import sys
import urllib.request

sys.path.insert(0, os.path.abspath(".."))

import runc_async

project = "runc_async"
version = release = runc_async.__version__
author = "the runc_async authors"
copyright = "the runc_async authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"runc_async {runc_async.__version__}"
html_static_path: list[str] = []
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "py:obj"  # `Runc` in a docstring is a link
suppress_warnings = ["ref.python"]  # there are two names Job and Result: the package's own and contrib.dask's
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88


def reachable(mapping: dict[str, str]) -> dict[str, tuple[str, None]]:
    """Those whose inventory can be had. Without a network the links into other projects are plain text."""
    found: dict[str, tuple[str, None]] = {}
    for name, url in mapping.items():
        try:
            with urllib.request.urlopen(f"{url}objects.inv", timeout=5):
                found[name] = (url, None)
        except OSError as exc:
            print(f"{name}: no links into {url}: {exc}")
            if not found:  # the first one is Python's: there is no network
                break
    return found


intersphinx_mapping = reachable(
    {
        "python": "https://docs.python.org/3/",
        "anyio": "https://anyio.readthedocs.io/en/stable/",
        "trio": "https://trio.readthedocs.io/en/stable/",
    }
)
