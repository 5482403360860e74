"""How a generative adversarial network is trained: what ``medaug.train.gan`` reads.

Each key whose value differs between a recipe that works and what was published says both beside
each other (:func:`per_preset`). A key given explicitly wins over its preset.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from medaug.spec.base import Precision
from medaug.spec.study import ArmSpec, Beta, FitOn, Positive, PositiveFloat

Preset = Literal["stable", "as_published"]
Weight = Annotated[float, Field(ge=0)]


def per_preset(*, stable: Any, as_published: Any) -> Any:
    """A field whose default depends on the ``preset`` field declared before it."""
    values = {"stable": stable, "as_published": as_published}
    return Field(default_factory=lambda fields: values[fields["preset"]])


class GanSpec(ArmSpec):
    """Objective and optimisation of a GAN; its networks' keys are in the arms' own subclasses.

    ``stable`` is what was stable on prototypes: hinge loss, true cross-entropy on real rows only,
    Adam 1e-3 with betas (0, .9), averaged weights, balanced batches, standardised features.
    ``as_published`` is study A's paper where it speaks and its reference code
    (gitlimlab/ACGAN-PyTorch) where it is silent: Adam .002, batch 16, 50 epochs are the paper's;
    betas, losses and the latent are the code's.
    """

    preset: Preset = "stable"

    adv: Literal["bce", "hinge", "wgan_gp", "r1"] = per_preset(stable="hinge", as_published="bce")
    """``bce``: non-saturating (Goodfellow 2014). ``hinge``: Lim & Ye 2017. ``wgan_gp``: Gulrajani
    2017. ``r1``: ``bce`` with Mescheder's (2018) penalty on real rows."""
    penalty_weight: Weight = 10.0
    """lambda of ``wgan_gp``, gamma of ``r1``."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """One-sided: the discriminator's target for real rows is 1 - this (``bce``, ``r1``)."""
    cond: Literal["ac", "adc", "proj", "none"] = "ac"
    """How the discriminator sees the class: auxiliary classifier (Odena 2017), ADC-GAN (Hou 2022),
    projection (Miyato & Koyama 2018), not at all."""
    aux_loss: Literal["ce", "nll_on_prob"] = per_preset(stable="ce", as_published="nll_on_prob")
    """``nll_on_prob`` is the reference code's log-loss taken of probabilities: its gradient
    vanishes where the classifier is confidently wrong."""
    aux_weight: Weight = per_preset(stable=0.2, as_published=1.0)
    """Weight of the class loss, in the discriminator's and in the generator's objective."""
    aux_on_fake: bool = per_preset(stable=False, as_published=True)
    """The discriminator learns the class from generated rows too (ADC always does)."""
    info_weight: Weight = 0.5
    """Weight of InfoGAN's code reconstruction (Chen 2016), where the networks have codes."""
    inst_noise: Weight = 0.0
    """Standard deviation, in scaled units, of the noise added to all rows that the discriminator
    sees (Sonderby 2017)."""

    d_aug: Literal["none", "diffaugment", "ada"] = "none"
    """Augment all rows that the discriminator sees, real and generated: ``diffaugment`` always
    (Zhao et al. 2020), ``ada`` as often as it takes to keep it from knowing the real ones by heart
    (Karras et al. 2020). Images: colour, translation, cutout; features: flips, translation, channel
    dropout."""
    lecam: Weight = 0.0
    """Weight of LeCam's bound on how sure the discriminator gets (Tseng et al. 2021: up to .3)."""

    fit_on: FitOn = "train"
    sampler: Literal["balanced", "prior"] = per_preset(stable="balanced", as_published="prior")
    """Classes of the real rows in a batch. Labels of generated rows are uniform in both, as in
    the reference code; with ``wgan_gp`` they are those of the real rows beside them, so that a row
    between the two has one label."""
    feature_scale: Literal["standardise", "minmax", "none"] = per_preset(
        stable="standardise", as_published="minmax"
    )
    """Per channel, fitted on the training rows: to mean 0 and deviation 1, to [-1, 1], as is. It
    has to match the range of the generator's last layer."""

    epochs: Positive = 50
    steps_per_epoch: Positive | None = None
    """Discriminator steps; None: one pass over the training rows."""
    batch_size: Positive = 16
    """Global, over all ranks; all rows where there are fewer. The last uneven batch of an epoch is
    dropped."""
    lr_g: PositiveFloat = per_preset(stable=1e-3, as_published=2e-3)
    lr_d: PositiveFloat = per_preset(stable=1e-3, as_published=2e-3)
    betas: tuple[Beta, Beta] = per_preset(stable=(0.0, 0.9), as_published=(0.5, 0.999))
    n_critic: Positive = 1
    """Discriminator steps per generator step."""
    ema: Annotated[float, Field(ge=0, lt=1)] = per_preset(stable=0.98, as_published=0.0)
    """Decay per generator step of the averaged weights that samples are drawn from; 0: none."""
    collapse_patience: NonNegativeInt = per_preset(stable=10, as_published=0)
    """End the training as a mode collapse after so many epochs in a row, in its second half, in
    which generated rows have less than a twentieth of the real ones' within-class deviation; 0:
    train on."""
    precision: Precision = "auto"
    accumulate: Positive = 1
    """Take the discriminator's batch in so many parts, one after the other, and move once: the
    same step in less memory. Wants a discriminator without batch norm."""
    compile: Literal["none", "default", "cuda_graphs"] = "none"
    """``torch.compile`` for both networks, or that with a CUDA graph of each. The first goes with
    ``resources.step_graphs``, which records whole steps; the second is for steps that cannot be
    recorded. Only GPUs gain, so without one it is ignored, and says so."""
    eval_every: Positive = 5
    """Epochs between measurements of ``val/fd``; the last epoch is always measured."""

    @property
    def has_penalty(self) -> bool:
        """Whether the discriminator's gradient in its rows is part of its loss."""
        return self.adv in ("wgan_gp", "r1")

    @model_validator(mode="after")
    def _smoothing_needs_targets(self) -> GanSpec:
        if self.label_smoothing and self.adv not in ("bce", "r1"):
            raise ValueError(f"adv {self.adv} has no targets to smooth: set label_smoothing to 0")
        return self
