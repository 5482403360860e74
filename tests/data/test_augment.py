"""Augmentation: a pure function of each sample's seed, image and mask moved alike."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medaug.data.augment import (
    NO_CHANGE,
    STUDY_A,
    STUDY_D,
    STUDY_D_EACH,
    augment,
    times_four,
)

S = 48


def only(**fields):
    return NO_CHANGE.model_copy(update=fields)


def images(n: int = 6, size: int = S) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random images and label maps with one off-centre blob of labels 1 and 4."""
    x = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    mask = torch.zeros(n, size, size, dtype=torch.uint8)
    mask[:, size // 4 : size // 2, size // 3 : size // 2] = 4
    mask[:, size // 4 : size // 3, size // 3 : size // 2] = 1
    return x, mask


def ramps(n: int, size: int) -> torch.Tensor:
    """(n, 2, size, size): each pixel holds its own column and row."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([x, y]).float().expand(n, 2, size, size)


FULL = STUDY_A.model_copy(update={"crop": 0.2, "clip": 0.1, "brightness": 0.2, "contrast": 0.2})


@pytest.mark.parametrize("spec", [STUDY_A, STUDY_D, FULL, only(rot90=True, hflip=0.5)])
def test_a_sample_depends_on_its_seed_only(spec):
    x, mask = images()
    seeds = [11, 22, 33, 44, 55, 66]
    out, out_mask = augment(x, mask, spec, seeds)
    order = [4, 0, 2]
    some, some_mask = augment(x[order], mask[order], spec, [seeds[i] for i in order])
    torch.testing.assert_close(some, out[order], rtol=0, atol=1e-6)
    assert torch.equal(some_mask, out_mask[order])
    again, _ = augment(x, None, spec, seeds)
    assert torch.equal(again, out)
    other, _ = augment(x, None, spec, [s + 1 for s in seeds])
    assert not torch.allclose(other, out)


def test_drawing_one_thing_does_not_change_another():
    x, mask = images()
    flipped, _ = augment(x, mask, only(hflip=0.5), range(6))
    both, _ = augment(x, mask, only(hflip=0.5, brightness=0.3), range(6))
    shift = (both - flipped).flatten(1)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=0)


def test_mask_moves_with_the_image_and_keeps_its_labels():
    _, mask = images(20)
    image = (mask > 0).float()[:, None]
    moved, moved_mask = augment(image, mask, STUDY_A, range(20))
    assert moved_mask.dtype == torch.uint8
    assert set(moved_mask.unique().tolist()) == {0, 1, 4}
    a, b = moved[:, 0] > 0.5, moved_mask > 0
    dice = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert dice > 0.97
    assert not torch.equal(moved_mask, mask)


def test_fill_is_constant_outside_and_masks_are_zero_there():
    x = torch.full((8, 1, S, S), -3.5)
    same, _ = augment(x, None, STUDY_A, range(8), fill=-3.5)
    torch.testing.assert_close(same, x)
    moved, mask = augment(x, torch.ones(8, S, S, dtype=torch.int64), only(shift=0.5), range(8))
    outside = moved[:, 0] == 0
    assert outside.any((1, 2)).all()
    assert (mask[outside] == 0).all()
    assert mask.dtype == torch.int64
    assert ((moved > -3.501) & (moved <= 0)).all()


def test_flips_and_quarter_turns_are_exact():
    x, mask = images(64)
    out, out_mask = augment(x, mask, only(hflip=0.5, vflip=0.5, rot90=True), range(64))
    turned = {k: torch.rot90(x, k, (2, 3)) for k in range(4)}
    symmetries = [t for turn in turned.values() for t in (turn, turn.flip(3))]
    found = [[bool(torch.equal(out[i], s[i])) for s in symmetries] for i in range(64)]
    assert all(any(row) for row in found)
    assert {row.index(True) for row in found} == set(range(8))
    joint, _ = augment(
        torch.cat([x, mask[:, None].float()], 1),
        None,
        only(hflip=0.5, vflip=0.5, rot90=True),
        range(64),
    )
    assert torch.equal(joint[:, 1].to(torch.uint8), out_mask)
    sure, _ = augment(x, None, only(hflip=1.0), range(64))
    assert torch.equal(sure, x.flip(3))


def test_nothing_asked_nothing_done():
    x, mask = images()
    out, out_mask = augment(x, mask, NO_CHANGE, range(6))
    assert torch.equal(out, x)
    assert torch.equal(out_mask, mask)


def source_affine(spec, n=200):
    """Map from output to input pixels (n, 3, 2) about the centre, fitted to moved ramps."""
    middle = slice(8, 25)  # of 33: never reached by what comes in from outside
    moved, _ = augment(ramps(n, 33), None, spec, range(n))
    target = moved[..., middle, middle].flatten(2).transpose(1, 2) - 16
    output = ramps(1, 33)[..., middle, middle].flatten(2).transpose(1, 2) - 16
    design = torch.cat([output, torch.ones_like(output[..., :1])], 2)
    return torch.linalg.lstsq(design.expand(n, -1, -1), target).solution


def test_ranges_of_the_affine_parts():
    rotation = source_affine(only(rotation_deg=20.0))
    angle = torch.rad2deg(torch.atan2(rotation[:, 0, 1], rotation[:, 0, 0]))
    assert angle.abs().max() <= 20.1
    assert angle.std().item() == pytest.approx(40 / 12**0.5, rel=0.15)  # uniform
    scale = source_affine(only(zoom=(0.9, 1.1)))
    zoom = 1 / scale[:, [0, 1], [0, 1]]
    assert zoom.min() == pytest.approx(0.9, abs=0.01)
    assert zoom.max() == pytest.approx(1.1, abs=0.01)
    shift = source_affine(only(shift=0.1))[:, 2] / 33
    assert shift.abs().max() == pytest.approx(0.1, abs=0.005)
    shear = source_affine(only(shear=0.05))
    assert shear[:, 1, 0].abs().max() == pytest.approx(0.05, abs=0.003)
    assert shear[:, 0, 1].abs().max() < 1e-3


def test_a_crop_never_leaves_the_image():
    x = torch.ones(100, 1, 32, 32)
    out, _ = augment(x, None, only(crop=0.4), range(100), fill=-1.0)
    inner = out[:, :, 1:-1, 1:-1]  # the outermost pixels blend with the fill
    torch.testing.assert_close(inner, torch.ones_like(inner))
    side = source_affine(only(crop=0.4))[:, 0, 0]
    assert side.min() == pytest.approx(0.6, abs=0.02)
    assert side.max() == pytest.approx(1.0, abs=0.02)


def displacement(size: int, seeds) -> torch.Tensor:
    """(n, 2, size, size) elastic displacements in pixels."""
    x = ramps(len(seeds), size)
    out, _ = augment(x, None, only(elastic_alpha=720.0), seeds)
    return out - x


def test_elastic_matches_smoothed_noise_at_full_size():
    """Simard's recipe as the reference code runs it: uniform noise, Gaussian filter, times 720."""
    inside = slice(80, 160)
    ours = displacement(240, range(40))[..., inside, inside].numpy()
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (80, 240, 240))
    theirs = 720 * gaussian_filter(noise, 24, mode="constant", axes=(1, 2))[:, inside, inside]
    assert ours.std() == pytest.approx(theirs.std(), rel=0.12)
    steps = [np.diff(d.reshape(-1, 80, 80), axis=2).std() for d in (ours, theirs)]
    assert steps[0] == pytest.approx(steps[1], rel=0.12)


def test_elastic_is_the_same_at_every_size():
    fine = displacement(240, [3])[..., 40:200, 40:200] / 240
    coarse = displacement(60, [3])[..., 10:50, 10:50] / 60
    shrunk = torch.nn.functional.avg_pool2d(fine, 4)
    torch.testing.assert_close(coarse, shrunk, atol=5e-4, rtol=0)


@pytest.mark.parametrize("name", ["clip", "brightness", "contrast"])
def test_intensity_changes_follow_the_image_scale_and_leave_masks_alone(name):
    x, mask = images()
    spec = STUDY_D_EACH[name]
    out, out_mask = augment(x, mask, spec, range(6))
    assert torch.equal(out_mask, mask)
    assert (out != x).flatten(1).any(1).all()
    scaled, _ = augment(50 * x - 7, None, spec, range(6))
    torch.testing.assert_close(scaled, 50 * out - 7, atol=1e-3, rtol=1e-4)


def test_strength_of_intensity_changes():
    x, _ = images(100)
    x = (x - x.amin((2, 3), keepdim=True)) / (x.amax((2, 3)) - x.amin((2, 3)))[..., None, None]
    bright, _ = augment(x, None, only(brightness=0.2), range(100))
    assert (bright - x).abs().max() == pytest.approx(0.2, abs=0.01)
    contrast, _ = augment(x, None, only(contrast=0.2), range(100))
    ratio = contrast.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.8 <= ratio.min() < 0.82
    assert 1.18 < ratio.max() <= 1.2
    torch.testing.assert_close(contrast.mean((1, 2, 3)), x.mean((1, 2, 3)))
    clip, _ = augment(x, None, only(clip=0.1), range(100))
    assert clip.amin((1, 2, 3)).max() == pytest.approx(0.1, abs=0.005)
    torch.testing.assert_close(clip.amin((1, 2, 3)), 1 - clip.amax((1, 2, 3)))


def test_keeps_type_and_handles_empty_batches():
    x, mask = images()
    out, _ = augment(x.half(), mask, FULL, range(6))
    assert out.dtype == torch.float16
    empty, empty_mask = augment(x[:0], mask[:0], FULL, [])
    assert empty.shape == (0, 1, S, S)
    assert empty_mask.shape == (0, S, S)


def test_errors_name_the_fix():
    x, _ = images()
    with pytest.raises(ValueError, match="one seed per image"):
        augment(x, None, STUDY_A, [1])
    with pytest.raises(ValueError, match="square"):
        augment(x[:, :, :20], None, STUDY_A, range(6))
    with pytest.raises(ValueError, match="square"):
        times_four(x[:, :, :20])


def test_times_four():
    x, mask = images(3)
    four = times_four(x)
    assert four.shape == (12, 1, S, S)
    assert torch.equal(four[:3], x)
    assert torch.equal(four[3:6, 0, :, 0], x[:, 0, :, -1])
    assert torch.equal(four[6:9, 0, 0], x[:, 0, -1])
    assert torch.equal(four[9:, 0].transpose(1, 2).flip(2), x[:, 0])
    assert torch.equal(times_four(mask)[9:], mask.rot90(1, (1, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same():
    x, mask = images()
    here, here_mask = augment(x, mask, FULL, range(6))
    there, there_mask = augment(x.cuda(), mask.cuda(), FULL, range(6))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)
    assert (there_mask.cpu() != here_mask).float().mean() < 1e-3
