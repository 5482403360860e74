"""The audit of packages: what pip-audit leaves out is a complaint, not a success."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "docker" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(name: str, version: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": version, "vulns": list(vulns)}


def test_every_pinned_package_needs_an_answer(audit: Any) -> None:
    wanted = audit.pinned("# x\nFlask_Cors==6.0.5\nray==2.60.0 \\\n    --hash=sha256:00\n")
    assert wanted == {"flask-cors": "6.0.5", "ray": "2.60.0"}
    sound = [answer("flask-cors", "6.0.5"), answer("ray", "2.60.0")]
    assert list(audit.complaints(wanted, {"dependencies": sound})) == []
    (line,) = audit.complaints(wanted, {"dependencies": sound[:1]})
    assert line.startswith("ray 2.60.0: not audited")
    skipped = {"name": "ray", "skip_reason": "Dependency not found"}
    (line,) = audit.complaints(wanted, {"dependencies": [sound[0], skipped]})
    assert line == "ray 2.60.0: not audited (Dependency not found)"
    known = {"id": "CVE-2026-41486", "fix_versions": ["2.55"]}
    (line,) = audit.complaints(wanted, {"dependencies": [sound[0], answer("ray", "2.60.0", known)]})
    assert line == "ray 2.60.0: CVE-2026-41486, fixed in 2.55"


@pytest.mark.parametrize("name", ["constraints.txt", "docker/requirements.txt"])
def test_the_lists_are_pinned_throughout(audit: Any, name: str) -> None:
    lines = [x for x in (ROOT / name).read_text().splitlines() if x[:1].isalnum()]
    assert len(audit.pinned("\n".join(lines))) == len(lines) > 100
