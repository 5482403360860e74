"""A skull-stripped brain on FLAIR, as implicit surfaces in millimetres.

Axes follow the BraTS array order: x runs to the patient's left, y to the back, z to the top; the
origin lies between the lateral ventricles. A shape is a signed distance in mm, negative inside,
exact enough near its surface to become partial volume through :func:`soft`. Arrays broadcast, so
the same formulas serve a whole volume and a list of points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Always float32 at run time: volumes are large."""
Axes = tuple[Floats, Floats, Floats]
"""Coordinates in mm of the rows, columns and slices of a volume."""

HALF_BOX_MM = (78.0, 98.0)
"""Half width and half length of the box that holds every brain."""
Z_RANGE_MM = (-58.0, 74.0)
"""From the lower end of the cerebellum to the vertex."""

WHITE, GREY, DEEP_GREY, CSF = 0.60, 0.71, 0.69, 0.15
"""FLAIR intensities before gain: fluid is dark, cortex a little brighter than white matter."""


def soft(distance: Floats, width_mm: float) -> Floats:
    """Share of a voxel inside a surface: a linear ramp of ``width_mm`` across it, in [0, 1]."""
    return np.clip(0.5 - distance / width_mm, 0, 1, dtype=np.float32)


def smooth_field(rng: np.random.Generator, axes: Axes, knot_mm: float) -> Floats:
    """A Gaussian random field of unit variance on a grid: cubic B-splines on a fixed lattice.

    The lattice is fixed in mm, not in pixels, so that a seed gives the same field at every image
    size and number of slices. Blobs are about two knots wide.
    """
    half = (*HALF_BOX_MM, max(map(abs, Z_RANGE_MM)))
    counts = [int(np.ceil(2 * h / knot_mm)) + 4 for h in half]
    field = rng.standard_normal(counts, dtype=np.float32)
    for axis, h, count in zip(axes, half, counts, strict=True):
        # Contract the first direction and append the result: x, y, z come back in order.
        offset = np.abs((axis[:, None] + h) / knot_mm + 1 - np.arange(count))
        basis = np.where(
            offset < 1,
            2 / 3 - offset**2 + offset**3 / 2,
            np.clip(2 - offset, 0, None) ** 3 / 6,
        )
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
        field = np.tensordot(field, basis.astype(np.float32), axes=(0, 1))
    return field


def ellipsoid(
    x: Floats, y: Floats, z: Floats, centre: tuple[float, ...], semi: tuple[float, ...]
) -> Floats:
    """Distance in mm to an ellipsoid, exact on spheres and close to it near the surface."""
    u, v, w = ((p - c) / s for p, c, s in zip((x, y, z), centre, semi, strict=True))
    r = np.sqrt(np.maximum(u * u + v * v + w * w, 1e-12))
    # |grad r| = gradient / r; both are kept off 0, where the distance is the longest semi-axis.
    gradient = np.sqrt((u / semi[0]) ** 2 + (v / semi[1]) ** 2 + (w / semi[2]) ** 2)
    return (r - 1) * r / np.maximum(gradient, 1e-6 / max(semi))


def union(*distances: Floats, blend_mm: float = 3.0) -> Floats:
    """Union of shapes with rounded seams (polynomial smooth minimum)."""
    joined = distances[0]
    for other in distances[1:]:
        overlap = np.maximum(blend_mm - np.abs(joined - other), 0) / blend_mm
        joined = np.minimum(joined, other) - overlap * overlap * (blend_mm / 4)
    return joined


@dataclass(frozen=True)
class Brain:
    """One patient's anatomy; nothing here knows the class."""

    size: tuple[float, ...]
    """Scale along x, y, z relative to the average brain."""
    tilt_rad: float
    """In-plane rotation of the head."""
    ventricle_scale: float
    sulcus: float
    """Width of the sulci, in standard deviations of the folding field."""
    caps: float
    """Brightness of the periventricular caps."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Brain:
        return cls(
            size=tuple(map(float, rng.uniform((0.93, 0.93, 0.95), (1.04, 1.04, 1.0)))),
            tilt_rad=float(np.deg2rad(rng.normal(0, 3))),
            ventricle_scale=float(np.exp(rng.normal(0, 0.22))),
            sulcus=float(rng.uniform(0.07, 0.20)),
            caps=float(rng.gamma(2, 0.05)),
        )

    def pose(self, x: Floats, y: Floats, z: Floats) -> Axes:
        """Scanner coordinates to those of the average brain."""
        c, s = math.cos(self.tilt_rad), math.sin(self.tilt_rad)
        a, b, h = self.size
        return (c * x + s * y) / a, (c * y - s * x) / b, z / h

    @staticmethod
    def surface(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """The brain with its cerebellum and stem; and the folded part of it, without the base.

        The second distance ignores the flat underside, where slices graze the surface.
        """
        side = np.abs(x)
        # Hemispheres are centred off the midline and narrow towards the frontal pole.
        narrow = 1 + 0.0011 * np.minimum(y, 0) * (1 - z / 200)
        cerebrum = ellipsoid(side / narrow, y, z, (2, 0, 8), (64, 84, 62))
        # Underside: the frontal lobes rise forwards, the occipital ones ride on the tentorium.
        floor = -24 + 0.25 * np.maximum(-30 - y, 0)
        floor = floor + 0.45 * np.maximum(y - 12, 0) - 0.10 * side
        temporal = ellipsoid(side, y, z, (41, -10, -21), (21, 38, 23))
        cerebellum = ellipsoid(side, y, z, (20, 46, -34), (32, 28, 22))
        stem = np.sqrt((x / 1.15) ** 2 + (y - 14 + 0.12 * z) ** 2)
        stem = np.maximum(stem - 13 - 0.06 * (z + 25), z - 5)
        folded = union(cerebrum, temporal, cerebellum)
        return union(np.maximum(cerebrum, floor - z), temporal, cerebellum, stem), folded

    @staticmethod
    def fissures(x: Floats, y: Floats, z: Floats) -> Floats:
        """Fluid between the hemispheres (outside the corpus callosum), Sylvian groove, cistern."""
        side = np.abs(x)
        callosum = ellipsoid(np.zeros_like(x), y, z, (0, 0, 0), (1, 46, 27))
        between = np.maximum(np.maximum(side - 0.8, -callosum), -8 - z)
        slope = z + 4 - 0.25 * (y + 10)
        sylvian = ellipsoid(side, y, slope, (60, -10, 0), (24, 26, 2.6))
        cistern = ellipsoid(x, y, z, (0, -14, -24), (13, 9, 8))
        return np.minimum(np.minimum(between, sylvian), cistern)

    def ventricles(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Lateral ventricles with their temporal horns, third and fourth ventricle."""
        s = self.ventricle_scale
        side = np.abs(x)
        # The centre line bends outwards and down on its way to the frontal and occipital horns.
        bend_x = 7 + 0.0068 * (y + 6) ** 2 * np.where(y > -6, 1, 0.55)
        bend_z = 8 - 0.0032 * (y - 2) ** 2
        body = ellipsoid(side - bend_x, y, z - bend_z, (0, 4, 0), (5.2 * s, 42, 8.5 * s**0.5))
        temporal = ellipsoid(side, y, z, (30, 6, -18), (2.6 * s, 17, 3.5 * s))
        third = ellipsoid(x, y, z, (0, 4, -4), (1.6 * s, 13, 9))
        fourth = ellipsoid(x, y, z, (0, 26, -30), (6, 4.5 * s, 9))
        return np.minimum(np.minimum(body, temporal), np.minimum(third, fourth))

    @staticmethod
    def deep_grey(x: Floats, y: Floats, z: Floats) -> Floats:
        """Thalamus, lentiform nucleus and the head of the caudate."""
        side = np.abs(x)
        thalamus = ellipsoid(side, y, z, (11, 10, 2), (8, 14, 9))
        lentiform = ellipsoid(side - 0.25 * (y + 6), y, z, (25, -4, 0), (6, 17, 9))
        caudate = ellipsoid(side, y, z, (13, -20, 6), (4.5, 9, 10))
        return np.minimum(thalamus, np.minimum(lentiform, caudate))

    def white_matter_points(self, rng: np.random.Generator, z: Floats, n: int) -> Floats:
        """``n`` random points (n, 3) of the deep white matter between the slices at ``z``."""
        margin = min(12.0, float(np.ptp(z)) / 4)
        low = (-55, -70, max(float(z.min()) + margin, -12))
        high = (55, 65, min(float(z.max()) - margin, 52))
        points = rng.uniform(low, high, (500 + 100 * n, 3)).astype(np.float32)
        posed = self.pose(*points.T)
        inside = (self.surface(*posed)[0] < -14) & (np.abs(posed[0]) > 12)
        return points[inside & (self.ventricles(*posed) > 6)][:n]


@dataclass(frozen=True)
class Anatomy:
    """A healthy brain on a grid; arrays are (X, Y, Z)."""

    tissue: Floats
    """Intensity of the tissue, fluid not yet in it."""
    fluid: Floats
    """Share of each voxel that is cerebrospinal fluid."""
    head: npt.NDArray[np.bool_]
    """What skull stripping leaves."""
    parenchyma: npt.NDArray[np.bool_]
    """The brain without its ventricles: where a tumour can be."""


def grid(axes: Axes) -> Axes:
    """Axes as arrays that broadcast to (X, Y, Z)."""
    x, y, z = axes
    return x[:, None, None], y[None, :, None], z[None, None, :]


def healthy(
    brain: Brain, axes: Axes, push: Axes, pixel_mm: float, rng: np.random.Generator
) -> Anatomy:
    """Paint ``brain`` on a grid, its inner parts displaced by ``push`` (mass effect), in mm."""
    warped = [c + 2.5 * smooth_field(rng, axes, 24) for c in grid(axes)]
    surface, folded = brain.surface(*brain.pose(*warped))
    inner = brain.pose(*(c - p for c, p in zip(warped, push, strict=True)))
    ventricles = brain.ventricles(*inner)

    # Sulci are the zero lines of a random field, thinning out with depth; cortex lines them.
    fold = smooth_field(rng, axes, 6.5)
    surface += 0.8 * fold
    thin = np.clip(1.2 + folded / 16, 0, 1)
    sulci = (np.abs(fold) - brain.sulcus * thin) * 5
    sulci = np.maximum(sulci, -18 - folded)
    grey = soft(np.minimum(sulci, -folded) - 2.5, pixel_mm + 1)

    tissue = WHITE + (GREY - WHITE) * grey
    tissue += soft(brain.deep_grey(*inner), pixel_mm + 1.5) * (DEEP_GREY - tissue)
    tissue *= 1 + 0.02 * smooth_field(rng, axes, 4)
    horns = np.clip(np.abs(inner[1]) / 40, 0, 1)
    caps = np.exp(np.maximum(ventricles, 0) / -3.5) * brain.caps
    tissue += caps * horns * (1 - grey)
    for point in brain.white_matter_points(rng, axes[2], rng.poisson(4)):
        tissue += rng.uniform(0.1, 0.35) * _spot(axes, point, rng.uniform(1.2, 3.2))

    fluid = np.minimum(np.minimum(ventricles, brain.fissures(*inner)), sulci)
    head = surface < 0
    return Anatomy(tissue, soft(fluid, pixel_mm + 0.6), head, head & (ventricles > 0))


def _spot(axes: Axes, centre: Floats, sd_mm: float) -> Floats:
    """A Gaussian spot of height 1."""
    x, y, z = (np.exp((a - c) ** 2 / (-2 * sd_mm**2)) for a, c in zip(axes, centre, strict=True))
    return x[:, None, None] * y[:, None] * z
