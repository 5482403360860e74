"""Ask the public advisory database about every pinned package: ``make audit``.

pip-audit may leave out what it cannot look up; here every package of the two pinned lists must have
an answer. Exit 0: no known vulnerability. 1: some, or a package without an answer. 3: the database
gives no answer at all, so nothing is known.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LISTS = {"constraints.txt": "--no-deps", "docker/requirements.txt": "--require-hashes"}
"""Pinned lists, and why pip-audit need not resolve them."""


def pinned(text: str) -> dict[str, str]:
    """Package -> version of every ``name==version`` line; names in their normal form."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def complaints(wanted: Mapping[str, str], report: Mapping[str, Any]) -> Iterator[str]:
    """One line for each vulnerability, and for each package that has no answer."""
    answers = {re.sub(r"[-_.]+", "-", d["name"]).lower(): d for d in report["dependencies"]}
    for name, version in wanted.items():
        answer = answers.get(name, {"skip_reason": "pip-audit does not mention it"})
        if "skip_reason" in answer:
            yield f"{name} {version}: not audited ({answer['skip_reason']})"
        elif answer["version"] != version:
            yield f"{name} {version}: audited as {answer['version']}"
        for known in answer.get("vulns", ()):
            fixed = ", ".join(known["fix_versions"]) or "no version"
            yield f"{name} {version}: {known['id']}, fixed in {fixed}"


def main() -> int:
    found = []
    for file, mode in LISTS.items():
        command = [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", mode]
        command += ["--progress-spinner=off", "--format=json", "--requirement", str(ROOT / file)]
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
        except ValueError:  # it says nothing on stdout when it gives up
            reason = " ".join(done.stderr.split()[-12:])
            print(f"audit: {file}: no answer from the advisory database ({reason})")
            print("audit: NOTHING was audited; run it where the database can be reached")
            return 3
        wanted = pinned((ROOT / file).read_text())
        found += [f"{file}: {line}" for line in complaints(wanted, report)]
        print(f"audit: {file}: {len(wanted)} packages")
    print("\n".join(found) or "audit: no known vulnerability")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
