"""How the things that a trial makes are called."""

from __future__ import annotations

from collections.abc import Mapping

from medaug.spec import GenerateTrial, Stage, TrialConfig

OUTPUT_KINDS: Mapping[Stage, str] = {
    "draw": "drawn",
    "segment": "unet",
    "extract": "features",
    "generate": "rows",
}


def output_name(config: TrialConfig) -> str:
    """Name of the model or store that a trial makes, for example ``unet-1f0c…``."""
    return f"{OUTPUT_KINDS[config.stage]}-{config.key}"


def generator_name(config: TrialConfig) -> str:
    """Name of the generator model that a ``generate`` trial makes, or finds, beside its rows."""
    assert isinstance(config, GenerateTrial)
    return f"generator-{config.generator_key}"
