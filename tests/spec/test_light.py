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
    code = (
        "import sys\nfrom medaug.cli import main\n"
        f"try: main(['run', {str(DEMO)!r}, '--set', {override!r}])\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout.strip() == ""


def test_an_extra_that_is_missing_is_told_before_a_scan_is_read() -> None:
    code = (
        "import sys\nsys.modules['monai'] = None\nfrom medaug.cli import main\n"
        f"try: main(['run', {str(DEMO)!r}, '--set', 'arms.flow_image={{}}'])\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stderr.endswith("needs the package monai; pip install 'medaug[monai]'\n")
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout.strip() == ""


def test_names_in_the_specification_are_those_of_the_code() -> None:
    assert {kind: arm.Config for kind, arm in ARMS.items()} == dict(ARM_CONFIGS)
    assert set(NETWORKS) == set(CLASSIFIERS)
    assert not set(NETWORKS) & set(LINEAR)
