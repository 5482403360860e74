"""``python -m tests.compat``: the sweep, cluster and tracking tests with other Rays and MLflows, and
with other Pythons.

Each pair of versions has an environment of its own in ``.compat/``. What it does not need another
version of, torch above all, it finds in the environment that this runs in. Another Python needs all
of it, and torch as its registry has it (with CUDA's libraries, some 3 GB, where there is no other);
where there is no such interpreter or a wheel is missing, its row says so. Prints one table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".compat"
PAIR = ("ray", "mlflow")
PARTS = {"mlflow": ("mlflow-skinny", "mlflow-tracing")}
"""Packages of the same version that a package is made of."""
TESTS = ("tests/sweep", "tests/cluster", "tests/tracking")
AS_MAKE_TEST = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
PYTHONS = ("3.12", "3.13")
"""Beside the one that this runs in."""
HEAD = ("environment", "python", *PAIR, "torch", "passed", "failed", "skipped", "minutes")


def requirements() -> dict[str, Requirement]:
    """What medaug wants of Ray and MLflow, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, project["dependencies"])
    return {one.name: one for one in wanted if one.name in PAIR}


def oldest(requirement: Requirement) -> Version:
    """The lower bound."""
    return min(Version(part.version) for part in requirement.specifier if part.operator == ">=")


def newest(requirement: Requirement) -> Version:
    """The newest version that medaug may have, of which the registry has all parts."""
    parts = [requirement.name, *PARTS.get(requirement.name, ())]
    whole = set.intersection(*map(released, parts))
    return max(one for one in whole if one in requirement.specifier)


def released(package: str) -> set[Version]:
    """The versions of a package in the registry."""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (listed,) = re.findall(r"^Available versions: (.*)$", told, re.MULTILINE)
    return set(map(Version, listed.split(", ")))


def make(name: str, versions: dict[str, Version]) -> Path:
    """The Python of the environment ``name``, made if it is not there; the one that runs this, where
    it has these versions."""
    if all(metadata.version(one) == str(version) for one, version in versions.items()):
        return Path(sys.executable)
    folder, here = FOLDER / name, Path(sysconfig.get_paths()["purelib"])
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        (site,) = (folder / "lib").glob("python*/site-packages")
        (site / "zz_below.pth").write_text(f"{here}\n")  # its own packages come first
    wanted = [
        f"{one.name}{sorted(one.extras)}=={versions[one.name]}".replace("'", "")
        for one in requirements().values()
    ]
    ours = (one for one in metadata.requires("medaug") or () if "extra ==" not in one)
    others = [one for one in ours if Requirement(one).name not in PAIR]
    install = [python, "-m", "pip", "install", "--quiet", *wanted, *others]
    subprocess.run(install, check=True, cwd=ROOT)
    return python


def interpreter(version: str) -> Path | None:
    """A Python of this version that runs, on the path or of pyenv."""
    found = [shutil.which(f"python{version}")]
    found += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for python in filter(None, found):
        show = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(show, capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return Path(python)
    return None


def with_python(version: str, arguments: list[str]) -> list[str]:
    """A row of the table for another Python, or why there is none."""
    name = f"python{version}"
    base = interpreter(version)
    if base is None:
        return [name, "no interpreter", *[""] * (len(HEAD) - 2)]
    python = FOLDER / name / "bin" / "python"
    if not python.exists():
        subprocess.run([base, "-m", "venv", FOLDER / name], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--editable", ".[dev]"]
    done = subprocess.run(install, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        print(f"{name}: {(errors or done.stderr.splitlines())[-1]}")
        return [name, "no wheels", *[""] * (len(HEAD) - 2)]
    return run(name, python, arguments)


def run(name: str, python: Path, arguments: list[str]) -> list[str]:
    """A row of the table."""
    show = "import ray, mlflow, torch, platform as p; print(p.python_version(), ray.__version__, "
    show += "mlflow.__version__, torch.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    versions = subprocess.check_output([python, "-c", show], text=True, env=environment, cwd=ROOT)
    began = time.monotonic()
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", *AS_MAKE_TEST]
    command += arguments or TESTS
    log = FOLDER / f"{name}.log"
    with open(log, "w") as file:
        subprocess.run(command, env=environment, cwd=ROOT, stdout=file, stderr=file, check=False)
    last = log.read_text().strip().splitlines()[-1]
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    found["failed"] = found.get("failed", 0) + found.get("error", 0)  # as when a fixture fails
    counts = [str(found.get(word, 0)) for word in ("passed", "failed", "skipped")]
    return [name, *versions.split(), *counts, f"{(time.monotonic() - began) / 60:.1f}"]


def main(*arguments: str) -> int:
    """``arguments`` are pytest's; without any, the tests of the three rooms run."""
    FOLDER.mkdir(exist_ok=True)
    wanted = requirements()
    rows = []
    for name, choose in (("oldest", oldest), ("newest", newest)):
        python = make(name, {key: choose(one) for key, one in wanted.items()})
        rows.append(run(name, python, [*arguments]))
    rows += [with_python(version, [*arguments]) for version in PYTHONS]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for row in (HEAD, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    ran = [row for row in rows if row[HEAD.index("minutes")]]
    good = all(row[HEAD.index("failed")] == "0" != row[HEAD.index("passed")] for row in ran)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
