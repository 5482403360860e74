"""The simulated cohort: same bytes for a seed, a class signal of known strength, nothing else."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medaug.data.anatomy import ellipsoid, smooth_field, soft
from medaug.data.phantom import (
    bayes_balanced_accuracy,
    draw_tumour,
    labels,
    render,
    write_cohort,
)
from medaug.errors import UserError
from medaug.seeding import numpy_generator
from medaug.spec.data import PhantomSpec

SMALL = PhantomSpec(patients=4, slices=(3, 5), seed=7)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_seed_same_bytes(tmp_path):
    write_cohort(SMALL, 32, tmp_path / "a")
    write_cohort(SMALL, 32, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_another_seed_is_other_people_with_other_brains(tmp_path):
    write_cohort(SMALL, 32, tmp_path / "a")
    write_cohort(SMALL.model_copy(update={"seed": 8}), 32, tmp_path / "b")
    a, b = ({p.name for p in (tmp_path / c).glob("*/*")} for c in "ab")
    assert len(a) == len(b) == SMALL.patients
    assert not a & b
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "b").values())


def test_brats_layout(tmp_path):
    write_cohort(SMALL, 40, tmp_path / "c")
    folders = sorted((tmp_path / "c").glob("*/*"))
    assert {f.parent.name for f in folders} == {"HGG", "LGG"}
    for folder in folders:
        image = nib.load(folder / f"{folder.name}_flair.nii.gz")
        mask = nib.load(folder / f"{folder.name}_seg.nii.gz")
        assert image.get_data_dtype() == np.int16
        assert mask.get_data_dtype() == np.uint8
        assert image.shape == mask.shape
        assert image.shape[:2] == (40, 40)
        assert SMALL.slices[0] <= image.shape[2] <= SMALL.slices[1]
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert np.allclose(image.header.get_zooms(), (6, 6, 6))
        np.testing.assert_array_equal(image.affine, mask.affine)
        voxels, tumour = np.asanyarray(image.dataobj), np.asanyarray(mask.dataobj)
        assert voxels.min() == 0  # skull-stripped
        assert set(np.unique(tumour)) <= {0, 1, 2}
        assert (tumour > 0).any()
        assert (voxels[tumour > 0] > 0).all()


def test_pixels_of_a_full_size_slice_are_one_millimetre(tmp_path):
    write_cohort(PhantomSpec(patients=2, slices=(2, 2)), 240, tmp_path / "c")
    image = nib.load(next((tmp_path / "c").rglob("*_flair.nii.gz")))
    np.testing.assert_allclose(image.affine[:2], [[-1, 0, 0, 0], [0, -1, 0, 239]])  # as in BraTS


def test_a_finished_cohort_is_kept_and_an_interrupted_one_leaves_nothing(tmp_path):
    out = tmp_path / "c"

    def stop(done, total, name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(SMALL, 32, out, progress=stop)
    assert list(tmp_path.iterdir()) == []

    seen = []
    write_cohort(SMALL, 32, out, progress=lambda *now: seen.append(now))
    assert [now[:2] for now in seen] == [(i, 4) for i in (1, 2, 3, 4)]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    write_cohort(SMALL, 32, out, progress=stop)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_never_writes_over_something_else(tmp_path):
    write_cohort(SMALL, 32, tmp_path / "c")
    with pytest.raises(UserError, match="something other than this phantom"):
        write_cohort(SMALL, 48, tmp_path / "c")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "keep.txt").write_text("mine")
    with pytest.raises(UserError, match="give an empty folder"):
        write_cohort(SMALL, 32, tmp_path / "scans")
    assert json.loads((tmp_path / "c" / "cohort.json").read_text())["image_size"] == 32


def test_both_classes_occur_in_the_asked_share():
    assert labels(PhantomSpec()).sum() == 61
    assert labels(PhantomSpec(patients=2, positive_fraction=0.01)).sum() == 1
    assert labels(PhantomSpec(patients=3, positive_fraction=0.99)).sum() == 2


def volume_auc(d_prime: float, n: int = 300) -> float:
    """How well tumour volume alone tells the classes apart."""
    spec = PhantomSpec(patients=n, positive_fraction=0.5, d_prime=d_prime, seed=5, slices=(7, 9))
    y = labels(spec)
    tumours = [render(spec, i, bool(y[i]), 20) for i in range(n)]
    return float(roc_auc_score(y, [(p.mask > 0).sum() * p.slice_mm for p in tumours]))


def test_class_signal_follows_d_prime():
    null, weak, strong = (volume_auc(d) for d in (0.0, 1.2, 2.6))
    assert abs(null - 0.5) < 3 * np.sqrt(301 / (12 * 150 * 150))  # Mann-Whitney under the null
    assert null < weak < strong
    # One trait has a loading of .6 on u: AUC = Phi(.6 d' / sqrt 2).
    assert strong == pytest.approx(norm.cdf(0.6 * 2.6 / np.sqrt(2)), abs=3 * 0.021)


def test_null_cohorts_are_null_over_many_seeds():
    """With d' = 0 the Mann-Whitney statistic of the radius is standard normal over cohorts."""
    z = []
    for seed in range(100):
        spec = PhantomSpec(patients=100, positive_fraction=0.5, d_prime=0.0, seed=seed)
        y = labels(spec)
        radius = [draw_tumour(spec, i, bool(y[i])).radius_mm for i in range(100)]
        z.append((roc_auc_score(y, radius) - 0.5) / np.sqrt(101 / (12 * 50 * 50)))
    assert abs(np.mean(z)) < 3 / np.sqrt(100)
    assert np.std(z) == pytest.approx(1, abs=0.25)


def test_class_changes_nothing_but_the_tumour():
    spec = PhantomSpec(slices=(9, 9), seed=3)
    lgg, hgg = (render(spec, 0, positive, 64) for positive in (False, True))
    assert lgg.tumour.radius_mm < hgg.tumour.radius_mm
    np.testing.assert_array_equal(lgg.image > 0, hgg.image > 0)
    changed = lgg.image != hgg.image
    assert changed[hgg.mask > 0].mean() > 0.9
    # Mass effect fades within a few radii: the far half of the head is the same, noise included.
    x = np.argwhere(hgg.mask)[:, 0].mean()
    far = changed[:16] if x > 32 else changed[48:]
    assert far.mean() < 0.01

    null = spec.model_copy(update={"d_prime": 0.0})
    a, b = (render(null, 0, positive, 32) for positive in (False, True))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.mask, b.mask)


def test_anatomy_does_not_depend_on_the_image_size():
    spec = PhantomSpec(slices=(6, 6))
    coarse, fine = render(spec, 1, True, 40), render(spec, 1, True, 160)
    shrunk = (fine.image > 0).reshape(40, 4, 40, 4, 6).mean((1, 3)) > 0.5
    brain = coarse.image > 0
    assert 2 * (shrunk & brain).sum() / (shrunk.sum() + brain.sum()) > 0.95
    assert coarse.tumour == fine.tumour


def test_few_slices_still_show_the_tumour():
    for patient in range(20):
        spec = PhantomSpec(slices=(1, 3), seed=patient)
        assert (render(spec, patient, False, 32).mask > 0).any()


def test_bayes_ceiling():
    assert bayes_balanced_accuracy(0) == 0.5
    assert bayes_balanced_accuracy(2.2) == pytest.approx(0.864, abs=5e-4)  # NETWORKS table
    u = np.random.default_rng(0).standard_normal((2, 200_000)) + np.array([[-1.1], [1.1]])
    rule = ((u[0] < 0).mean() + (u[1] > 0).mean()) / 2
    assert bayes_balanced_accuracy(2.2) == pytest.approx(rule, abs=2e-3)


def test_smooth_field_has_unit_variance_and_no_grid_dependence():
    axes = tuple(np.linspace(-60, 60, n, dtype=np.float32) for n in (61, 61, 25))
    fields = [smooth_field(numpy_generator(i), axes, 10) for i in range(8)]
    assert np.std(fields) == pytest.approx(1, abs=0.05)
    coarse = smooth_field(numpy_generator(0), (axes[0][::3], axes[1][::2], axes[2][::4]), 10)
    np.testing.assert_allclose(coarse, fields[0][::3, ::2, ::4], atol=1e-5)


def test_ellipsoid_is_an_exact_distance_on_spheres():
    x = np.linspace(-30, 30, 61, dtype=np.float32)
    zero = np.zeros_like(x)
    got = ellipsoid(x, zero, zero, (0, 0, 0), (10, 10, 10))
    np.testing.assert_allclose(got, np.abs(x) - 10, atol=1e-4)
    np.testing.assert_allclose(soft(got, 4.0)[[0, 20, 30]], [0, 0.5, 1])
