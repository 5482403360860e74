"""Losses against closed forms, hand-worked numbers and independent libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from medaug.models import losses

# --- Segmentation ---------------------------------------------------------------------------


@pytest.fixture
def segmentation() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(4, 1, 6, 5), (torch.rand(4, 1, 6, 5) > 0.7).to(torch.uint8)


@pytest.mark.parametrize("squared", [True, False])
def test_dice_is_the_formula_over_the_whole_batch(segmentation, squared: bool) -> None:
    p, m = (t.double().numpy() for t in segmentation)
    power = 2 if squared else 1
    dice = (2 * (p * m).sum() + 1e-5) / ((p**power).sum() + (m**power).sum() + 1e-5)
    loss = losses.soft_dice_loss(*segmentation, squared=squared)
    assert loss.item() == pytest.approx(1 - dice, abs=1e-6)


def test_dice_per_image_is_the_mean_of_single_images(segmentation) -> None:
    p, m = segmentation
    alone = [losses.soft_dice_loss(p[i : i + 1], m[i : i + 1]) for i in range(4)]
    per_image = losses.soft_dice_loss(p, m, per="image")
    torch.testing.assert_close(per_image, torch.stack(alone).mean())
    assert abs(per_image - losses.soft_dice_loss(p, m)) > 1e-4


def test_dice_at_its_ends() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    assert losses.soft_dice_loss(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert losses.soft_dice_loss(1 - mask, mask).item() == pytest.approx(1, abs=1e-5)
    empty = torch.zeros(1, 1, 4, 4)
    assert losses.soft_dice_loss(empty, empty).item() == pytest.approx(0, abs=1e-6)
    # p = 1/2 everywhere on 4 of 16 pixels: 2 * 2 / (16/4 + 4) = 1/2.
    half = torch.full((1, 1, 4, 4), 0.5)
    assert losses.soft_dice_loss(half, mask).item() == pytest.approx(0.5, abs=1e-5)


def test_dice_of_summed_terms_is_that_of_the_global_batch(segmentation) -> None:
    p, m = segmentation
    terms = sum(losses.dice_terms(p[rows], m[rows]) for rows in ([0, 1, 2], [3]))
    torch.testing.assert_close(losses.dice_loss_of(terms), losses.soft_dice_loss(p, m))


def test_dice_of_bfloat16_is_summed_in_float32() -> None:
    p = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)  # bfloat16 cannot count beyond 256
    terms = losses.dice_terms(p, torch.ones(1, 1, 64, 64, dtype=torch.uint8))
    assert terms.tolist() == [8192.0, 8192.0]


def test_dice_refuses_another_reduction(segmentation) -> None:
    with pytest.raises(ValueError, match="use batch or image"):
        losses.soft_dice_loss(*segmentation, per="pixel")  # type: ignore[arg-type]


# --- Real or fake ---------------------------------------------------------------------------


def test_bce_is_the_sum_of_two_cross_entropies() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    expected = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(losses.bce_discriminator(real, fake), expected)
    torch.testing.assert_close(losses.bce_generator(fake), -fake.sigmoid().log().mean())
    zero = torch.zeros(3)
    assert losses.bce_discriminator(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_one_sided_smoothing_puts_the_optimum_at_its_target() -> None:
    logit = torch.tensor([math.log(0.9 / 0.1)], requires_grad=True)  # D(x) = .9
    loss = losses.bce_discriminator(logit, torch.zeros(1), real_target=0.9)
    (gradient,) = torch.autograd.grad(loss, logit)
    assert gradient.item() == pytest.approx(0, abs=1e-6)


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert losses.hinge_discriminator(real, fake).item() == pytest.approx(2.5 / 3 + 3 / 3)
    assert losses.ADVERSARIAL["hinge"].generator(fake).item() == pytest.approx(2 / 3)


def test_critic_by_hand() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([-1.0, 0.0])
    assert losses.critic_discriminator(real, fake).item() == pytest.approx(-3.5)
    assert losses.critic_generator(fake).item() == pytest.approx(0.5)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_each_player_gains_by_moving_its_way(kind: str) -> None:
    loss = losses.ADVERSARIAL[kind]
    real = torch.zeros(4, requires_grad=True)
    fake = torch.zeros(4, requires_grad=True)
    on_real, on_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    assert (on_real < 0).all()  # the discriminator raises real rows and lowers fakes
    assert (on_fake > 0).all()
    (on_fake,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (on_fake < 0).all()


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_mean_of_equal_ranks_is_the_loss_of_the_global_batch(kind: str) -> None:
    loss = losses.ADVERSARIAL[kind]
    real, fake = torch.randn(2, 3), torch.randn(2, 3)
    ranks = [loss.discriminator(real[i], fake[i]) for i in range(2)]
    whole = loss.discriminator(real.flatten(), fake.flatten())
    torch.testing.assert_close(torch.stack(ranks).mean(), whole)


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_bfloat16_outputs_give_a_float32_loss(kind: str) -> None:
    loss = losses.ADVERSARIAL[kind]
    row = torch.randn(4, dtype=torch.bfloat16)
    torch.testing.assert_close(loss.discriminator(row, -row), loss.discriminator(row.float(), -row))
    assert loss.generator(row).dtype == torch.float32


def test_gradient_penalty_of_a_linear_critic_and_its_own_gradient() -> None:
    w = torch.randn(3, 2, 2, requires_grad=True)
    real, fake = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2, requires_grad=True)
    penalty = losses.gradient_penalty(lambda x: (x * w).sum((1, 2, 3)), real, fake, torch.rand(5))
    norm = w.detach().norm()
    torch.testing.assert_close(penalty.detach(), (norm - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(w.grad, 2 * (norm - 1) * w.detach() / norm)
    assert fake.grad is None


def test_gradient_penalty_is_taken_between_fake_and_real() -> None:
    real, fake = torch.full((2, 4), 3.0), torch.full((2, 4), -1.0)
    mix = torch.tensor([0.0, 0.75])
    # The critic |x|^2 / 2 has gradient x, and in 4 dimensions |x| is twice an entry: |-1| at the
    # fake, and 2 three quarters of the way to the real row.
    penalty = losses.gradient_penalty(lambda x: x.square().sum(1) / 2, real, fake, mix)
    assert penalty.item() == pytest.approx(((2 - 1) ** 2 + (4 - 1) ** 2) / 2)


def test_r1_of_a_linear_critic_and_its_own_gradient() -> None:
    w = torch.randn(6, requires_grad=True)
    penalty = losses.r1_penalty(lambda x: x.flatten(1) @ w, torch.randn(5, 3, 2))
    torch.testing.assert_close(penalty.detach(), w.detach().square().sum() / 2)
    penalty.backward()
    torch.testing.assert_close(w.grad, w.detach())


# --- Class ----------------------------------------------------------------------------------


def test_nll_on_prob_is_minus_the_probability_and_goes_blind() -> None:
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = -logits.softmax(1)[torch.arange(6), label].mean()
    torch.testing.assert_close(losses.nll_on_prob(logits, label), expected)

    wrong = torch.tensor([[10.0, 0.0]], requires_grad=True)
    label = torch.tensor([1])
    (blind,) = torch.autograd.grad(losses.nll_on_prob(wrong, label), wrong)
    (seeing,) = torch.autograd.grad(losses.cross_entropy(wrong, label), wrong)
    p = 1 / (1 + math.exp(10))
    assert blind[0, 1].item() == pytest.approx(-p * (1 - p), rel=1e-3)
    assert seeing[0, 1].item() == pytest.approx(-(1 - p), rel=1e-3)


def test_adc_discriminator_is_cross_entropy_over_2k_classes() -> None:
    real, fake = torch.randn(4, 6), torch.randn(4, 6)
    y_real, y_fake = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 0, 0])
    log_real, log_fake = real.log_softmax(1), fake.log_softmax(1)
    rows = torch.arange(4)
    expected = -log_real[rows, y_real].mean() - log_fake[rows, 3 + y_fake].mean()
    torch.testing.assert_close(losses.adc_discriminator(real, y_real, fake, y_fake), expected)


def test_adc_generator_wants_real_of_its_class() -> None:
    fake = torch.randn(4, 6, requires_grad=True)
    label = torch.tensor([2, 1, 0, 0])
    log_p = fake.log_softmax(1)
    rows = torch.arange(4)
    expected = (log_p[rows, 3 + label] - log_p[rows, label]).mean()
    loss = losses.adc_generator(fake, label)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, fake)
    one_hot = F.one_hot(label, 3).float() / 4
    torch.testing.assert_close(gradient, torch.cat((-one_hot, one_hot), dim=1))


def test_code_loss_is_a_unit_gaussian_without_its_constant() -> None:
    mean, codes = torch.randn(5, 3), torch.randn(5, 3)
    nll = -Normal(mean, 1.0).log_prob(codes).sum(1).mean() - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(losses.code_loss(mean, codes), nll)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5)])
def test_focal_is_the_formula(gamma: float, weights) -> None:
    logits, label = torch.randn(9, 3), torch.tensor([0, 1, 2] * 3)
    z = logits.double().numpy()
    p = (np.exp(z) / np.exp(z).sum(1, keepdims=True))[np.arange(9), label.numpy()]
    w = np.ones(3) if weights is None else np.array(weights)
    expected = (-w[label.numpy()] * (1 - p) ** gamma * np.log(p)).mean()
    class_weight = None if weights is None else torch.tensor(weights)
    loss = losses.focal_loss(logits, label, gamma=gamma, class_weight=class_weight)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, label = torch.randn(9, 3), torch.tensor([0, 1, 2] * 3)
    torch.testing.assert_close(losses.focal_loss(logits, label), F.cross_entropy(logits, label))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradient_is_finite_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    losses.focal_loss(logits, torch.tensor([0, 0]), gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
