"""docs/security.md: every defence that the threat model names is shown by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_threat_names_tests_and_each_of_them_exists() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    threats = [line for line in page.split("## Threats")[1].splitlines() if line.startswith("| ")][1:]
    assert len(threats) > 15
    for threat in threats:
        named = NAMED.findall(threat)
        assert named, threat[:80]
        for path, test in named:
            assert (REPOSITORY / path).is_file(), path
            assert f"def {test}(" in (REPOSITORY / path).read_text(encoding="utf-8") or not test, test
