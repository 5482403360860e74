"""Structure and behaviour; the parameter counts are in ``test_catalogue.py``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medaug.models.acgan import AcganDiscriminator, AcganGenerator, sizes


@pytest.mark.parametrize(("size", "path"), [
    (15, [4, 8, 15]), (30, [4, 8, 15, 30]), (60, [4, 8, 15, 30, 60]),
    (120, [4, 8, 15, 30, 60, 120]),
])  # fmt: skip
def test_published_geometry(size: int, path: list[int]) -> None:
    assert sizes(size) == path
    generator = AcganGenerator((2, size, size), 2, 4)
    kernels = [
        (m.kernel_size[0], m.stride[0], m.padding[0])
        for m in generator.modules()
        if isinstance(m, nn.ConvTranspose2d)
    ]
    assert kernels == [(4, 1, 0), (4, 2, 1), (3, 2, 1)] + [(4, 2, 1)] * (len(path) - 3)
    discriminator = AcganDiscriminator((2, size, size), 2, 4)
    strides = [m.stride[0] for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [2] * (len(path) - 3) + [2, 1, 2]


@pytest.mark.parametrize("size", [*range(4, 40), 62, 85, 128, 240])
def test_every_size_is_grown_and_read(size: int) -> None:
    with torch.device("meta"):
        generator = AcganGenerator((3, size, size), 2, 2, nz=8)
        discriminator = AcganDiscriminator((3, size, size), 2, 2)
        z, label = torch.empty(5, 8), torch.empty(5, dtype=torch.long)
        x = generator(z, label)
        out = discriminator(x)
    assert x.shape == (5, 3, size, size)
    assert out.adv.shape == (5,)
    assert out.cls is not None
    assert out.cls.shape == (5, 2)
    assert out.codes is None


def test_k3p0_geometry_is_exact_at_the_published_sizes() -> None:
    assert sizes(15, "k3p0") == [3, 7, 15]
    for size in (15, 30, 60, 120):
        generator = AcganGenerator((2, size, size), 2, 4, nz=8, geometry="k3p0")
        assert generator(torch.randn(2, 8), torch.tensor([0, 1])).shape == (2, 2, size, size)
    with pytest.raises(ValueError, match="cannot grow 16x16; use paper"):
        sizes(16, "k3p0")


def test_first_entries_of_the_latent_are_overwritten_by_the_label() -> None:
    generator = AcganGenerator((3, 15, 15), 3, 4, nz=10).eval()
    z = torch.randn(4, 10)
    label = torch.tensor([2, 0, 1, 1])
    x = generator(z, label)
    other = z.clone()
    other[:, :3] = 99.0
    torch.testing.assert_close(generator(other, label), x, rtol=0, atol=0)
    expected = torch.cat((torch.eye(3)[label], z[:, 3:]), dim=1)
    torch.testing.assert_close(
        x, generator.layers(generator.fc(expected)[:, :, None, None]), rtol=0, atol=0
    )
    assert not torch.equal(generator(z, (label + 1) % 3), x)


@pytest.mark.parametrize(("out_act", "low", "high"), [
    ("tanh", -1.0, 1.0), ("relu", 0.0, float("inf")), ("linear", -float("inf"), float("inf")),
])  # fmt: skip
def test_output_range(out_act, low: float, high: float) -> None:
    generator = AcganGenerator((3, 15, 15), 2, 4, nz=8, out_act=out_act)
    with torch.no_grad():
        generator.layers[-2].weight.mul_(1000)
        x = generator(torch.randn(8, 8), torch.zeros(8, dtype=torch.long))
    assert low <= x.min() < (0.0 if out_act != "relu" else 1e-6)
    assert 0.5 < x.max() <= high


def test_one_joint_pass_equals_separate_passes_on_real_and_fake() -> None:
    joint = AcganDiscriminator((3, 15, 15), 2, 4, dropout=0.0)
    apart = copy.deepcopy(joint)
    real, fake = torch.randn(6, 3, 15, 15), 2 * torch.randn(6, 3, 15, 15) + 1
    whole = joint(torch.cat((real, fake)), parts=2)
    halves = [apart(real), apart(fake)]
    torch.testing.assert_close(whole.adv, torch.cat([out.adv for out in halves]))
    torch.testing.assert_close(whole.cls, torch.cat([out.cls for out in halves]))
    torch.testing.assert_close(joint.state_dict(), apart.state_dict())  # running statistics too
    whole.adv.square().sum().backward()
    sum(out.adv.square().sum() for out in halves).backward()
    for ours, theirs in zip(joint.parameters(), apart.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    # What the parts are for: joint statistics give another answer.
    assert not torch.allclose(joint(torch.cat((real, fake))).adv, whole.adv, atol=1e-3)


def test_batch_norm_of_parts_in_eval_mode_uses_the_running_statistics() -> None:
    net = AcganDiscriminator((3, 15, 15), 2, 4).eval()
    x = torch.randn(4, 3, 15, 15)
    torch.testing.assert_close(net(x, parts=2).adv, net(x).adv, rtol=0, atol=0)


def test_published_start_and_layers() -> None:
    net = AcganDiscriminator((64, 15, 15), 2, 128)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is None for m in convs)
    assert convs[1].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert norms[0].weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norms[0].weight.std().item() == pytest.approx(0.02, rel=0.3)
    generator = AcganGenerator((8, 15, 15), 2, 4)
    slopes = [m for n in (net, generator) for m in n.modules() if isinstance(m, nn.LeakyReLU)]
    assert [m.negative_slope for m in slopes] == [0.2] * 5
    assert all(m.p == 0.5 for m in net.trunk if isinstance(m, nn.Dropout))
    kinds = [type(m).__name__ for m in net.trunk]
    assert kinds[:3] == ["Conv2d", "LeakyReLU", "Dropout"]
    assert kinds[3:] == 2 * ["Conv2d", "PartedBatchNorm2d", "LeakyReLU", "Dropout"]


@pytest.mark.parametrize("cond", ["ac", "adc", "proj"])
def test_spectral_norm_bounds_every_weight(cond) -> None:
    net = AcganDiscriminator((8, 15, 15), 2, 8, norm="sn", dropout=0.0, cond=cond, n_codes=2)
    x, label = torch.randn(4, 8, 15, 15), torch.tensor([0, 1, 1, 0])
    for _ in range(30):  # each training pass is one power iteration
        net(x, label)
    net.eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 3 + {"ac": 3, "adc": 3, "proj": 3}[cond]
    for layer in layers:
        top = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2).item()
        assert top == pytest.approx(1.0, abs=0.02)
    # Nothing else depends on the mode: no batch norm, no dropout.
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Dropout) for m in net.modules())
    assert all(m.bias is not None for m in layers if not isinstance(m, nn.Embedding))


def test_projection_adds_the_inner_product_with_the_label() -> None:
    net = AcganDiscriminator((3, 15, 15), 2, 4, norm="none", dropout=0.0, cond="proj")
    x = torch.randn(4, 3, 15, 15)
    label = torch.tensor([0, 1, 1, 0])
    out = net(x, label)
    h = net.trunk(x).flatten(1)
    expected = net.adv(h)[:, 0] + torch.einsum("nd,nd->n", net.embed.weight[label], h)
    torch.testing.assert_close(out.adv, expected)
    assert out.cls is None
    with pytest.raises(ValueError, match="needs labels"):
        net(x)
    with pytest.raises(ValueError, match="use filter none"):
        net.class_logits(out)


def test_adc_head_counts_real_and_fake_of_each_class() -> None:
    net = AcganDiscriminator((3, 15, 15), 3, 4, norm="none", dropout=0.0, cond="adc")
    out = net(torch.randn(5, 3, 15, 15))
    assert out.cls is not None
    assert out.cls.shape == (5, 6)
    joint = out.cls.softmax(dim=1)
    torch.testing.assert_close(net.class_logits(out).softmax(dim=1), joint[:, :3] + joint[:, 3:])
    plain = AcganDiscriminator((3, 15, 15), 3, 4)
    out = plain(torch.randn(5, 3, 15, 15))
    assert plain.class_logits(out) is out.cls


def test_codes_have_a_head_and_must_fit_the_latent() -> None:
    net = AcganDiscriminator((3, 15, 15), 2, 4, n_codes=3)
    codes = net(torch.randn(4, 3, 15, 15)).codes
    assert codes is not None
    assert codes.shape == (4, 3)
    with pytest.raises(ValueError, match="4 < 2 classes \\+ 3 codes"):
        AcganGenerator((3, 15, 15), 2, 4, nz=4, n_codes=3)


def test_channels_last_and_bfloat16_are_the_same_network() -> None:
    generator = AcganGenerator((16, 15, 15), 2, 16).eval()
    discriminator = AcganDiscriminator((16, 15, 15), 2, 16, norm="sn", dropout=0.0).eval()
    z, label = torch.randn(4, 110), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        x = generator(z, label)
        adv = discriminator(x).adv
        for net in (generator, discriminator):
            net.to(memory_format=torch.channels_last)
        x_last = generator(z, label)
        torch.testing.assert_close(x_last, x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discriminator(x_last).adv, adv, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = discriminator(generator(z, label)).adv.float()
    torch.testing.assert_close(low, adv, rtol=0.1, atol=0.02)


def test_bad_requests_name_the_fix() -> None:
    shape = (3, 15, 15)
    with pytest.raises(ValueError, match="use wgan_gp or flow"):
        AcganGenerator((3, 2, 2), 2, 4)
    with pytest.raises(ValueError, match="square, not 15x16"):
        AcganDiscriminator((3, 15, 16), 2, 4)
    with pytest.raises(ValueError, match="use flat or pyramid"):
        AcganGenerator(shape, 2, 4, width_rule="steep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use tanh, relu or linear"):
        AcganGenerator(shape, 2, 4, out_act="gelu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use paper or k3p0"):
        AcganGenerator(shape, 2, 4, geometry="k4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use bn, sn or none"):
        AcganDiscriminator(shape, 2, 4, norm="ln")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use ac, adc or proj"):
        AcganDiscriminator(shape, 2, 4, cond="tac")  # type: ignore[arg-type]
