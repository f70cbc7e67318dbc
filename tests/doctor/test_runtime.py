"""What the doctor says of a runtime's version."""

from __future__ import annotations

from runc_async import Version
from runc_async._doctor.runtime import check_vulnerabilities


def test_a_version_with_known_holes_is_warned_of() -> None:
    (line,) = check_vulnerabilities(Version(runtime="runc", version="1.1.5"))
    assert line.state == "warning"
    assert "CVE-2024-21626" in line.found
    assert "docs/security" in line.advice


def test_of_a_newer_one_and_of_an_unknown_runtime_none_is_known() -> None:
    (line,) = check_vulnerabilities(Version(runtime="runc", version="99.0.0"))
    assert line.state == "good"
    assert list(check_vulnerabilities(Version(runtime="youki", version="0.1.0"))) == []
    assert list(check_vulnerabilities(None)) == []
