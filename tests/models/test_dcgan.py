from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medaug.models.dcgan import (
    DCGANS,
    Dcgan32Discriminator,
    Dcgan32Generator,
    Dcgan128Discriminator,
    Dcgan128Generator,
)


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_study_b_parameter_counts() -> None:
    with torch.device("meta"):
        assert _count(Dcgan32Generator()) == 4_870_785
        assert _count(Dcgan32Discriminator()) == 791_169


@pytest.mark.parametrize(("kernel", "generator", "discriminator"), [
    (5, 23_835_779, 17_433_089), (4, 17_639_171, 11_164_481),
])  # fmt: skip
def test_study_d_parameter_counts(kernel: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        assert _count(Dcgan128Generator(kernel=kernel)) == generator
        assert _count(Dcgan128Discriminator(kernel=kernel)) == discriminator


def test_study_b_uses_keras_batch_norm_and_its_slope() -> None:
    for net in (Dcgan32Generator(width=4), Dcgan32Discriminator(width=4)):
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
        slopes = {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)}
        assert slopes == {0.01}
    features = [m.num_features for m in Dcgan32Generator().modules() if hasattr(m, "num_features")]
    assert features == [32768, 128, 128, 128, 128]


@pytest.mark.parametrize(("pair", "channels", "size", "options"), [
    ("dcgan32", 1, 32, {}), ("dcgan32", 3, 40, {}),
    ("dcgan128", 3, 128, {"kernel": 5}), ("dcgan128", 1, 64, {"kernel": 4}),
])  # fmt: skip
def test_pairs_fit_each_other(pair: str, channels: int, size: int, options: dict) -> None:
    make_generator, make_discriminator = DCGANS[pair]
    generator = make_generator(channels=channels, size=size, width=4, **options)
    discriminator = make_discriminator(channels=channels, size=size, width=4, **options)
    x = generator(torch.randn(3, generator.nz))
    out = discriminator(x)
    assert x.shape == (3, channels, size, size)
    assert x.abs().max() <= 1
    assert out.adv.shape == (3,)
    assert out.cls is None
    assert out.codes is None
    out.adv.sum().backward()
    assert all(p.grad is not None for p in generator.parameters())


@pytest.mark.parametrize("pair", DCGANS)
def test_they_are_called_like_the_acgan_pair(pair: str) -> None:
    make_generator, make_discriminator = DCGANS[pair]
    generator = make_generator(width=2).eval()
    discriminator = make_discriminator(width=2)
    apart = copy.deepcopy(discriminator)
    label = torch.tensor([0, 1])
    z = torch.randn(2, 100)
    torch.testing.assert_close(generator(z, label), generator(z), rtol=0, atol=0)
    x = torch.randn(4, *generator(z).shape[1:])
    for net in (discriminator, apart):
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    joint = discriminator(x, torch.tensor([0, 1, 0, 1]), parts=2)
    separate = torch.cat([apart(half).adv for half in x.chunk(2)])
    torch.testing.assert_close(joint.adv, separate)
    torch.testing.assert_close(discriminator.state_dict(), apart.state_dict())


def test_published_feature_maps() -> None:
    sizes = []
    with torch.device("meta"):
        generator = Dcgan128Generator()
        for module in generator.layers:
            if isinstance(module, nn.ConvTranspose2d):
                module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[1:]))
        generator(torch.empty(2, 100))
    assert sizes == [(512, 16, 16), (256, 32, 32), (128, 64, 64), (3, 128, 128)]


def test_bad_requests_name_the_fix() -> None:
    with pytest.raises(ValueError, match="30 is not a multiple of 8"):
        Dcgan32Generator(size=30)
    with pytest.raises(ValueError, match="100 is not a multiple of 32"):
        Dcgan128Discriminator(size=100)
    with pytest.raises(ValueError, match="counts are for 4 and 5"):
        Dcgan128Generator(kernel=3)
