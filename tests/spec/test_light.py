"""What the study file can tell is told without loading a network, and the names agree with theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medaug.arms import ARMS
from medaug.models.classifiers import CLASSIFIERS
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.classifier import LINEAR, NETWORKS

DEMO = Path(__file__).parents[2] / "jobs" / "demo.yaml"
HEAVY = ("torch", "ray", "mlflow", "pyarrow", "sklearn")


def refused(override: str, missing: str = "") -> str:
    """The one line that a run with ``override`` ends with, exit code 2, before anything heavy is
    loaded; without the package ``missing``."""
    blocked = f"sys.modules[{missing!r}] = None\n" if missing else ""
    code = (
        f"import sys\n{blocked}from medaug.cli import main\n"
        f"try: main(['run', {str(DEMO)!r}, '--set', {override!r}])\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout.strip() == ""
    return ran.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms.acgn={}", "did you mean 'acgan'"),
        ("arms.acgan.epocs=3", "did you mean 'epochs'"),
        ("arms.flow_image={epocs: 3}", "did you mean 'epochs'"),
        ("classifier.kind=probee", "did you mean 'probe'"),
        ("data.layout=phantm", "did you mean 'phantom'"),
        ("sweep.n_synthetic=abc", "should be a list"),
        ('sweep.grid={"acgan.ngff": [1]}', "did you mean 'ngf'"),
        ("resources.rank=2", "did you mean 'ranks'"),
    ],
)
def test_a_mistake_is_told_before_anything_heavy_is_loaded(override: str, said: str) -> None:
    assert said in refused(override)


def test_an_extra_that_is_missing_is_told_before_a_scan_is_read() -> None:
    said = refused("arms.flow_image={}", missing="monai")
    assert said.endswith("needs the package monai; pip install 'medaug[monai]'\n")


def test_names_in_the_specification_are_those_of_the_code() -> None:
    assert {kind: arm.Config for kind, arm in ARMS.items()} == dict(ARM_CONFIGS)
    assert set(NETWORKS) == set(CLASSIFIERS)
    assert not set(NETWORKS) & set(LINEAR)


@pytest.mark.parametrize("module", ["cli.results", "results.leaderboard", "storage.run_folder"])
def test_what_reads_a_run_loads_no_network(module: str) -> None:
    code = f"import sys, medaug.{module}\nprint([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
