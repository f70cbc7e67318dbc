"""Fits the README to a package index, which shows it without the repository: relative links become absolute.

Called by hatchling when it builds a wheel or an sdist. The address comes from ``[project.urls] Source`` in
``pyproject.toml``; without one, a link becomes plain text and a picture is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)\s]+)\)")


def absolute(page: str, source: str | None, version: str) -> str:
    """A page of Markdown whose relative links lead to the repository.

    :param page: the text.
    :param source: the repository's address, such as ``https://forge.example/owner/name``; None if there is none.
    :param version: the version that is built: the links lead to its tag.
    """

    def replace(link: re.Match[str]) -> str:
        picture, text, target = link.group("picture", "text", "target")
        if source is None:
            return "" if picture else text
        return f"{picture}[{text}]({source.rstrip('/')}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return LINK.sub(replace, page)


class ReadmeHook(MetadataHookInterface):
    """Gives the package its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See `MetadataHookInterface.update`."""
        page = (Path(self.root) / "README.md").read_text()
        text = absolute(page, metadata.get("urls", {}).get("Source"), metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
