"""The code blocks of README and docs, and what of them is not run here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "cluster/README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("sh", "bash", "console", "shell")


@dataclass(frozen=True)
class Block:
    language: str
    file: str | None
    """The file of medaug that the block is or changes."""
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups()) for found in FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[list[str]]:
    """Words of each shell command of a page: one a line, or over lines that end with a backslash;
    ``# comments`` and ``VARIABLE=value`` in front are left out."""
    found = []
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


def shown(words: list[str]) -> str:
    return shlex.join(words)


ELSEWHERE = {
    "medaug run": ("tests/integration/test_spine.py", '"run"'),
    "medaug resume": ("tests/integration/test_spine.py", '"resume"'),
    "medaug compare": ("tests/tracking/test_compare.py", '"compare"'),
    "medaug unseal": ("tests/audit/test_unseal.py", "unseal("),
    "medaug score": ("tests/audit/test_score.py", '"score"'),
    "medaug predict": ("tests/audit/test_score.py", '"predict"'),
    "medaug ui": ("tests/browser/test_mlflow_ui.py", '"ui"'),
    "medaug submit": ("tests/cluster/test_submit.py", '"submit"'),
    "medaug status": ("tests/cluster/test_submit.py", '"status"'),
    "medaug stop": ("tests/cluster/test_submit.py", '"stop"'),
    "medaug bench": ("tests/bench", "medaug.bench"),
    "medaug plan": ("tests/plan", "estimate("),
    "medaug doctor": ("tests/doctor", '"doctor"'),
}
"""Commands that train, need a cluster, measure or serve for ever; the tests that run them or what
they are made of, and what stands there. Here the options are parsed, and where there is a study it
is read with every ``--set``."""

OUTSIDE = {
    "make": "Its targets are read with --dry-run; `make test` runs this test.",
    "git": "Fetches the repository.",
    "cd": "Of the same block as `git clone`.",
    "docker": "Needs a Docker engine.",
    "kubectl": "Needs a Kubernetes cluster.",
    "helm": "Needs a Kubernetes cluster.",
    "sbatch": "Needs Slurm.",
    "scontrol": "Needs Slurm.",
    "squeue": "Needs Slurm.",
    "ray": "Starts machines, or needs a cluster that stays.",
    "pip": "Installs; `make` does the same.",
    "python": "Scripts of their own tests.",
    "torchrun": "Needs several ranks.",
    "export": "Sets a variable of the reader's shell.",
    "umask": "Sets the reader's shell.",
    "openssl": "Makes a secret.",
    "sudo": "Changes the machine.",
    "bash": "Runs a script of the repository.",
    "nvidia-smi": "Needs a GPU.",
}
"""Programs that are not ours. What their commands name of this repository has to be there."""


def paths(words: list[str]) -> Iterator[Path]:
    """Files of the repository that a command names."""
    for word in words:
        name = word.rpartition("=")[2]
        if re.fullmatch(r"(jobs|cluster|docker|docs|medaug|tests)/[\w./-]+\.\w+", name):
            yield ROOT / name
