"""InfoGAN: the ACGAN with codes that its discriminator has to recover."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medaug.arms.acgan import AcganArm, AcganSpec


class InfoganSpec(AcganSpec):
    kind: Literal["infogan"] = "infogan"  # type: ignore[assignment]
    n_codes: Annotated[int, Field(ge=1)] = 2


class InfoganArm(AcganArm):
    """The ACGAN with a head Q(code | row), whose codes come to mean something in the rows.

    Chen et al. 2016, with continuous Gaussian codes: the future work that study A names. It is for
    understanding what is generated; nothing says that a classifier gains by it.
    """

    Config = InfoganSpec
