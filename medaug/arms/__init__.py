"""Ways to make a training set: the controls, the cheap generators, the adversarial ones.

Each arm is one file and one line here, or in a package of the user's own an entry point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from medaug.arms.acgan import AcganArm
from medaug.arms.acgan_image import AcganImageArm
from medaug.arms.base import Arm, ArmContext, FittedArm, GeneratedArm, ResampleArm
from medaug.arms.classical import ClassicalArm
from medaug.arms.controls import (
    ClassWeightsArm,
    DuplicateArm,
    LogitAdjustArm,
    MoreRealArm,
    NoneArm,
)
from medaug.arms.dcgan import DcganArm
from medaug.arms.flow import FlowArm
from medaug.arms.flow_image import FlowImageArm
from medaug.arms.folder import FolderArm
from medaug.arms.gaussian import GaussianArm
from medaug.arms.infogan import InfoganArm
from medaug.arms.mixup import MixupArm
from medaug.arms.monai_bundle import MonaiBundleArm
from medaug.arms.noise import NoiseArm
from medaug.arms.pseudo_labels import PseudoLabelsArm
from medaug.arms.smote import SmoteArm
from medaug.arms.wgan_gp import WganGpArm
from medaug.errors import UserError
from medaug.spec.plugins import ARMS as GROUP
from medaug.spec.plugins import Extended, subclass
from medaug.spec.study import ArmSpec

_OWN: Mapping[str, type[Arm]] = {
    "none": NoneArm,
    "duplicate": DuplicateArm,
    "class_weights": ClassWeightsArm,
    "logit_adjust": LogitAdjustArm,
    "more_real": MoreRealArm,
    "pseudo_labels": PseudoLabelsArm,
    "classical": ClassicalArm,
    "noise": NoiseArm,
    "mixup": MixupArm,
    "smote": SmoteArm,
    "gaussian": GaussianArm,
    "flow": FlowArm,
    "flow_image": FlowImageArm,
    "wgan_gp": WganGpArm,
    "acgan": AcganArm,
    "acgan_image": AcganImageArm,
    "infogan": InfoganArm,
    "dcgan": DcganArm,
    "folder": FolderArm,
    "monai_bundle": MonaiBundleArm,
}


ARMS: Mapping[str, type[Arm]] = Extended(_OWN, GROUP, subclass(GROUP, Arm, ArmSpec))
"""Kind -> arm, those of installed packages included."""


def load_arm(folder: Path) -> GeneratedArm:
    """The fitted arm that :meth:`GeneratedArm.save` wrote to ``folder``, on the CPU."""
    kind = json.loads((folder / "config.json").read_text())["arm"]["kind"]
    if kind not in ARMS:
        raise UserError(f"arm '{kind}': no installed package adds it; install the one that did")
    arm = ARMS[kind]
    assert issubclass(arm, GeneratedArm), f"{kind} makes no rows, so it is never saved"
    return arm.load(folder)


__all__ = [
    "ARMS",
    "Arm",
    "ArmContext",
    "FittedArm",
    "GeneratedArm",
    "ResampleArm",
    "load_arm",
]
