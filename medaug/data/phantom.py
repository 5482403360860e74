"""A simulated cohort: FLAIR-like volumes with tumours, and a class ceiling known in advance.

Each patient carries one class-informative number, ``u ~ N(+d'/2, 1)`` for the second class (HGG)
and ``N(-d'/2, 1)`` for the first (LGG). The tumour's radius, irregularity, contrast, edge blur,
heterogeneity and necrotic core are noisy functions of ``u``; anatomy, scanner, number of slices
and the tumour's place are independent of the class. So nothing that reads the images can beat
:func:`bayes_balanced_accuracy`, and ``d_prime = 0`` is a true null.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

from medaug.data.anatomy import (
    CSF,
    HALF_BOX_MM,
    WHITE,
    Z_RANGE_MM,
    Anatomy,
    Axes,
    Brain,
    Floats,
    grid,
    healthy,
    smooth_field,
    soft,
)
from medaug.errors import UserError
from medaug.seeding import numpy_generator
from medaug.spec.data import PhantomSpec

CLASSES = ("LGG", "HGG")
MARKER = "cohort.json"
RENDERER = 1
"""Raise when the same spec gives other voxels: an older cohort is then refused, not reused."""

FOV_MM = 240.0
"""Field of view of a slice; its pixels are ``FOV_MM / image_size`` wide."""
MAX_SLICE_MM = 6.0
"""Few slices show the middle of the brain rather than lie further apart than this."""
NECROSIS, TUMOUR = 1, 2
"""Labels in the mask, as in BraTS; the whole tumour is everything above 0."""

LOADING = 0.6
"""Correlation of each tumour trait with ``u`` within a class. Six such traits together keep .88
of d'; tumour volume alone has AUC .82 at d' = 2.2."""


def bayes_balanced_accuracy(d_prime: float) -> float:
    """Best balanced accuracy per patient on a phantom cohort, ``Phi(d' / 2)``.

    Reached by the sign of ``u`` itself; the traits that show it are noisy, so images give less.
    """
    return float(ndtr(d_prime / 2))


@dataclass(frozen=True)
class Tumour:
    """Traits of a tumour. ``u`` moves each from its LGG-like to its HGG-like end."""

    radius_mm: float
    irregularity: float
    """Standard deviation of the surface, as a share of the radius."""
    contrast: float
    """Brightness above white matter."""
    edge_mm: float
    """Width of the transition at the border."""
    heterogeneity: float
    core: float
    """Radius of the necrotic core as a share of the radius; 0 is none."""

    @classmethod
    def draw(cls, rng: np.random.Generator, u: float) -> Tumour:
        """Traits that each correlate with ``u`` by :data:`LOADING`, independent given ``u``."""
        trait = LOADING * u + np.sqrt(1 - LOADING**2) * rng.standard_normal(6)
        radius, irregularity, contrast, edge, heterogeneity, core = map(float, ndtr(trait / 1.4))
        return cls(
            radius_mm=11 * (28 / 11) ** radius,
            irregularity=0.06 + 0.22 * irregularity,
            contrast=0.14 + 0.34 * contrast,
            edge_mm=1.5 + 5.5 * edge,
            heterogeneity=0.02 + 0.16 * heterogeneity,
            core=0.85 * core - 0.15 if core > 0.4 else 0.0,
        )

    def push(self, ray: Axes, distance: Floats) -> Axes:
        """Mass effect: how far, in mm, each point has been moved away from the centre."""
        reach = np.exp(-((distance / (1.5 * self.radius_mm)) ** 2))
        shift = 0.3 * self.radius_mm * reach / (distance + 6)
        return ray[0] * shift, ray[1] * shift, ray[2] * shift

    def paint(
        self,
        host: Anatomy,
        axes: Axes,
        distance: Floats,
        pixel_mm: float,
        rng: np.random.Generator,
    ) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Grow the tumour in ``host``: intensities with the fluid in them, and the mask."""
        bumps = smooth_field(rng, axes, 0.45 * self.radius_mm)
        wobble = self.irregularity * self.radius_mm * bumps
        edge = distance - self.radius_mm - wobble
        inside = soft(edge, pixel_mm + self.edge_mm)
        texture = 1 + self.heterogeneity * smooth_field(rng, axes, 5)
        bright = (WHITE + self.contrast) * texture
        mask = np.where((edge < 0) & host.parenchyma, TUMOUR, 0).astype(np.uint8)
        if self.core > 0:
            core = distance - self.core * self.radius_mm - 0.6 * wobble
            bright += soft(core, pixel_mm + 2) * (0.3 - bright)
            mask[(core < 0) & (mask > 0)] = NECROSIS
        tissue = host.tissue + inside * (bright - host.tissue)
        # Swelling closes the sulci, but the ventricles stay dark.
        fluid = host.fluid * np.where(host.parenchyma, 1 - 0.8 * inside, 1)
        return tissue + fluid * (CSF - tissue), mask


@dataclass(frozen=True)
class Scanner:
    """How a patient was imaged; independent of the class."""

    gain: float
    bias: float
    """Standard deviation of the logarithm of the receive field."""
    noise: float
    """Standard deviation of the noise of 1 mm pixels, as a share of white matter."""
    psf_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scanner:
        return cls(
            gain=float(500 * np.exp(rng.normal(0, 0.25))),
            bias=float(rng.uniform(0.02, 0.08)),
            noise=float(rng.uniform(0.015, 0.05)),
            psf_mm=float(rng.uniform(0.4, 0.9)),
        )

    def acquire(
        self, tissue: Floats, axes: Axes, pixel_mm: float, rng: np.random.Generator
    ) -> Floats:
        """Point spread, receive field and Rician noise, which averages out in larger pixels."""
        for axis in (0, 1):
            tissue = gaussian_filter1d(tissue, self.psf_mm / pixel_mm, axis=axis)
        signal = tissue * np.exp(self.bias * smooth_field(rng, axes, 55))
        noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
        noise *= WHITE * self.noise / pixel_mm
        return self.gain * np.hypot(signal + noise[0], noise[1])


@dataclass(frozen=True)
class Phantom:
    """One simulated patient."""

    image: npt.NDArray[np.int16]
    """(X, Y, Z) in the LPS order of BraTS; 0 outside the brain."""
    mask: npt.NDArray[np.uint8]
    slice_mm: float
    tumour: Tumour


def draw_tumour(spec: PhantomSpec, patient: int, positive: bool) -> Tumour:
    """The tumour of a patient: the only thing about them that depends on the class."""
    key = (spec.seed, "phantom", patient)
    mean = spec.d_prime / 2 if positive else -spec.d_prime / 2
    u = mean + float(numpy_generator(*key, "u").standard_normal())
    return Tumour.draw(numpy_generator(*key, "tumour"), u)


def render(spec: PhantomSpec, patient: int, positive: bool, image_size: int) -> Phantom:
    """Simulate patient number ``patient``; a pure function of its arguments.

    Every purpose has its own generator, so ``d_prime`` changes the tumour's traits and nothing
    else, and ``image_size`` changes the sampling and the noise but not the anatomy.
    """
    key = (spec.seed, "phantom", patient)
    tumour = draw_tumour(spec, patient, positive)
    nuisance = numpy_generator(*key, "nuisance")
    brain, scanner = Brain.draw(nuisance), Scanner.draw(nuisance)
    z, slice_mm = _slices(spec, nuisance)
    centre = brain.white_matter_points(nuisance, z, 1)[0]
    stretch = nuisance.uniform(0.85, 1.18, 3).astype(np.float32)

    pixel_mm = FOV_MM / image_size
    x, y, box = _box(image_size)
    axes = (x, y, z)
    ray = [(c - p) / s for c, p, s in zip(grid(axes), centre, stretch, strict=True)]
    distance = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    push = tumour.push((ray[0], ray[1], ray[2]), distance)
    host = healthy(brain, axes, push, pixel_mm, numpy_generator(*key, "anatomy"))
    tissue, mask = tumour.paint(host, axes, distance, pixel_mm, numpy_generator(*key, "growth"))
    signal = scanner.acquire(tissue, axes, pixel_mm, numpy_generator(*key, "scanner"))

    shape = (image_size, image_size, len(z))
    whole_image, whole_mask = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    whole_image[box] = np.rint(np.where(host.head, np.maximum(signal, 1), 0))
    whole_mask[box] = mask
    return Phantom(whole_image, whole_mask, slice_mm, tumour)


def _slices(spec: PhantomSpec, rng: np.random.Generator) -> tuple[Floats, float]:
    """Positions of the slices and their distance in mm; how many is drawn from the spec."""
    n = int(rng.integers(spec.slices[0], spec.slices[1] + 1))
    low, high = Z_RANGE_MM
    slice_mm = min((high - low) / n, MAX_SLICE_MM)
    offset = (low + high) / 2 + slice_mm * rng.uniform(-0.5, 0.5)
    return (offset + slice_mm * (np.arange(n) - (n - 1) / 2)).astype(np.float32), slice_mm


def _box(image_size: int) -> tuple[Floats, Floats, tuple[slice, slice]]:
    """The pixels that can hold brain: x and y in mm, and where they lie in the whole slice."""
    centres = FOV_MM / image_size * (np.arange(image_size) - (image_size - 1) / 2)
    x, y = (np.flatnonzero(np.abs(centres) <= half) for half in HALF_BOX_MM)
    box = (slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1))
    return centres[x].astype(np.float32), centres[y].astype(np.float32), box


def labels(spec: PhantomSpec) -> npt.NDArray[np.bool_]:
    """Which patients are of the second class (HGG): both classes occur, in random order."""
    n_positive = min(max(round(spec.patients * spec.positive_fraction), 1), spec.patients - 1)
    order = numpy_generator(spec.seed, "phantom", "classes").permutation(spec.patients)
    return order < n_positive


def write_cohort(
    spec: PhantomSpec,
    image_size: int,
    out: Path,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write the cohort as ``out/<HGG|LGG>/<patient>/<patient>_{flair,seg}.nii.gz``.

    Images are int16 and masks uint8 (1 necrosis, 2 other tumour), ``image_size`` pixels over
    240 mm, LPS like BraTS. Files are byte-identical for equal arguments. The folder appears in
    one piece, its ``cohort.json`` written last: after an interruption nothing is there and the
    next call starts again, and a finished cohort is left as it is.

    Raises:
        UserError: ``out`` holds something else.
    """
    marker = {"renderer": RENDERER, "image_size": image_size, "phantom": spec.canonical()}
    if _holds(out, marker):
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        cohort = Path(scratch, "cohort")
        cohort.mkdir()
        # Patients in parallel rather than the small matrix products of one: 5 times the speed.
        one_blas_thread = threadpool_limits(1, user_api="blas")
        with one_blas_thread, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            jobs = [
                pool.submit(_write_patient, spec, patient, bool(positive), image_size, cohort)
                for patient, positive in enumerate(labels(spec))
            ]
            try:
                for done, job in enumerate(as_completed(jobs), start=1):
                    name = job.result()
                    if progress is not None:
                        progress(done, len(jobs), name)
            finally:
                pool.shutdown(cancel_futures=True)
        (cohort / MARKER).write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n")
        try:
            cohort.rename(out)
        except OSError:
            if not _holds(out, marker):  # else another process has just written the same cohort
                raise


def _holds(out: Path, marker: dict[str, Any]) -> bool:
    """Whether ``out`` is this very cohort; False when there is nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / MARKER).read_text())
    except (OSError, ValueError):
        found = None
    if found != marker:
        raise UserError(f"{out}: holds something other than this phantom; give an empty folder")
    return True


def _write_patient(
    spec: PhantomSpec, patient: int, positive: bool, image_size: int, cohort: Path
) -> str:
    # The seed is part of the name: patients of two cohorts are different people.
    name = f"phantom{spec.seed}_{patient:04d}"
    phantom = render(spec, patient, positive, image_size)
    folder = cohort / CLASSES[positive] / name
    folder.mkdir(parents=True)
    pixel_mm = FOV_MM / image_size
    affine = np.diag([-pixel_mm, -pixel_mm, phantom.slice_mm, 1.0])
    affine[1, 3] = FOV_MM - pixel_mm
    for kind, voxels in (("flair", phantom.image), ("seg", phantom.mask)):
        volume = nib.Nifti1Image(voxels, affine)
        volume.header.set_xyzt_units("mm")
        # No time stamp and no file name in the gzip header: equal voxels give equal bytes.
        data = gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)
        (folder / f"{name}_{kind}.nii.gz").write_bytes(data)
    return name
