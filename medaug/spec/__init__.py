"""Every configuration type, frozen; strict YAML plus ``--set``; the signature of each.

This room imports pydantic only, and PyYAML when a file is read.
"""

from medaug.spec.base import Spec, signature
from medaug.spec.classifier import (
    ClassifierSpec,
    LinearSpec,
    MeanSpec,
    NetworkSpec,
    ProbeSpec,
    build_classifier,
)
from medaug.spec.data import DataSpec, PhantomSpec
from medaug.spec.loader import build_arm, build_study, load_study, resumed_study, written_study
from medaug.spec.resources import ResourceSpec
from medaug.spec.study import (
    ArmSpec,
    AugmentSpec,
    FeatureSpec,
    PretrainSpec,
    SegmenterSpec,
    SplitSpec,
    StudySpec,
    TrackingSpec,
    WrittenArm,
)
from medaug.spec.sweep import AshaSpec, HyperbandSpec, MedianSpec, StopSpec, SweepSpec
from medaug.spec.trial import (
    ClassifyTrial,
    DrawTrial,
    ExtractTrial,
    GenerateTrial,
    SegmentTrial,
    Stage,
    TrialConfig,
)

__all__ = [
    "ArmSpec",
    "AshaSpec",
    "AugmentSpec",
    "ClassifierSpec",
    "ClassifyTrial",
    "DataSpec",
    "DrawTrial",
    "ExtractTrial",
    "FeatureSpec",
    "GenerateTrial",
    "HyperbandSpec",
    "LinearSpec",
    "MeanSpec",
    "MedianSpec",
    "NetworkSpec",
    "PhantomSpec",
    "PretrainSpec",
    "ProbeSpec",
    "ResourceSpec",
    "SegmentTrial",
    "SegmenterSpec",
    "Spec",
    "SplitSpec",
    "Stage",
    "StopSpec",
    "StudySpec",
    "SweepSpec",
    "TrackingSpec",
    "TrialConfig",
    "WrittenArm",
    "build_arm",
    "build_classifier",
    "build_study",
    "load_study",
    "resumed_study",
    "signature",
    "written_study",
]
