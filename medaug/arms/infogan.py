"""InfoGAN: the ACGAN with codes that its discriminator has to recover."""

from __future__ import annotations

from medaug.arms.acgan import AcganArm
from medaug.spec.arms import InfoganSpec


class InfoganArm(AcganArm):
    """The ACGAN with a head Q(code | row), whose codes come to mean something in the rows.

    Chen et al. 2016, with continuous Gaussian codes: the future work that study A names. It is for
    understanding what is generated; nothing says that a classifier gains by it.
    """

    Config = InfoganSpec
