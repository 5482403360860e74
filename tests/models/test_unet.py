from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medaug.models.unet import UNet, adapt_input, tap_shape
from medaug.spec.study import TAPS


@pytest.mark.parametrize(("in_channels", "whole", "encoder"), [
    (4, 34_513_921, 18_843_776),
    (1, 34_512_193, 18_842_048),
])  # fmt: skip
def test_parameter_counts_of_the_paper(in_channels: int, whole: int, encoder: int) -> None:
    with torch.device("meta"):
        net = UNet(in_channels)
    blocks = [net.get_submodule(name) for name in net.blocks("conv5")]
    assert sum(p.numel() for p in net.parameters()) == whole
    assert sum(p.numel() for block in blocks for p in block.parameters()) == encoder


@pytest.mark.parametrize(("tap", "shape"), [
    ("conv5", (1024, 15, 15)),
    ("conv4", (512, 30, 30)), ("deconv4", (512, 30, 30)), ("uconv4", (512, 30, 30)),
    ("conv3", (256, 60, 60)), ("deconv3", (256, 60, 60)), ("uconv3", (256, 60, 60)),
    ("conv2", (128, 120, 120)), ("deconv2", (128, 120, 120)), ("uconv2", (128, 120, 120)),
    ("conv1", (64, 240, 240)), ("deconv1", (64, 240, 240)), ("uconv1", (64, 240, 240)),
])  # fmt: skip
def test_tap_shapes_of_the_paper(tap: str, shape: tuple[int, int, int]) -> None:
    assert tap_shape(tap, base=64, image_size=240) == shape
    with torch.device("meta"):
        assert UNet().features(torch.empty(1, 1, 240, 240), tap).shape[1:] == shape


@pytest.mark.parametrize("image_size", [16, 48, 64, 176])
@pytest.mark.parametrize("tap", TAPS)
def test_tap_shape_is_what_the_network_gives(tap: str, image_size: int) -> None:
    with torch.device("meta"):
        h = UNet(base=2).features(torch.empty(1, 1, image_size, image_size), tap)
    assert h.shape[1:] == tap_shape(tap, 2, image_size)


@pytest.mark.parametrize("tap", TAPS)
def test_a_tap_runs_what_it_needs_and_nothing_else(tap: str) -> None:
    net = UNet(base=2)
    ran = []
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    h = net.features(torch.rand(1, 1, 32, 32), tap)
    calls_h = list(ran)
    h.sum().backward()
    with_gradient = {n.split(".")[0] for n, p in net.named_parameters() if p.grad is not None}

    # Every block that ran has a gradient from the tap: none ran in vain, and none is missing.
    assert {name.split(".")[0] for name in calls_h} - {"pool"} == with_gradient
    level = int(tap[-1])
    encoder = {f"conv{i}" for i in range(1, (level if tap.startswith("conv") else 5) + 1)}
    assert {name for name in with_gradient if name.startswith("conv")} == encoder
    assert calls_h.count("pool") == len(encoder) - 1
    assert "out" not in calls_h


def test_features_are_the_values_inside_the_full_forward() -> None:
    net = UNet(base=2).eval()
    x = torch.randn(2, 1, 32, 48)
    seen: dict[str, torch.Tensor] = {}
    for tap in TAPS:
        net.get_submodule(tap).register_forward_hook(
            lambda _m, _i, out, tap=tap: seen.setdefault(tap, out.clone())
        )
    with torch.no_grad():
        logits = net(x)
        for tap in TAPS:
            torch.testing.assert_close(net.features(x, tap), seen[tap], rtol=0, atol=0)
    assert logits.shape == (2, 1, 32, 48)


def test_decoder_joins_up_then_skip_of_the_same_level() -> None:
    net = UNet(base=2, init="kaiming")  # "tl" shrinks the signal below the tolerance
    x = torch.randn(1, 1, 32, 32)
    joined = torch.cat((net.features(x, "deconv4"), net.features(x, "conv4")), dim=1)
    torch.testing.assert_close(net.uconv4(joined), net.features(x, "uconv4"))


def test_up_convolution_is_tensorflows_same_up_to_one_pixel() -> None:
    """TF SAME = no padding and the last row and column cut; ours cuts the first instead."""
    net = UNet(base=2, init="kaiming")
    h = torch.randn(1, 32, 3, 3)
    full = F.conv_transpose2d(h, net.deconv4.weight, net.deconv4.bias, stride=2)
    torch.testing.assert_close(net.deconv4(h), full[..., 1:, 1:])


def test_sign_of_the_taps() -> None:
    net = UNet(base=2, init="kaiming")
    x = torch.randn(2, 1, 32, 32)
    assert all(net.features(x, tap).min() >= 0 for tap in ("conv5", "uconv2"))
    assert net.features(x, "deconv2").min() < 0


def test_tl_init_is_a_normal_cut_at_two_sd() -> None:
    weight = UNet(base=32).conv4[2].weight
    assert weight.abs().max() <= 0.04
    # A standard normal cut at +-2 has standard deviation .8796.
    assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01)


def test_kaiming_init_keeps_the_signal_through_all_levels() -> None:
    net = UNet(base=16, init="kaiming")
    x = torch.randn(1, 1, 64, 64)
    for tap in ("conv5", "deconv4", "uconv1"):
        power = net.features(x, tap).square().mean().item()
        assert 0.1 < power < 10, tap


@pytest.mark.parametrize(("how", "fed"), [
    ("slice_conv1", lambda x: F.pad(x, (0, 0, 0, 0, 0, 3))),
    ("zero_pad", lambda x: F.pad(x, (0, 0, 0, 0, 0, 3))),
    ("replicate", lambda x: x.expand(-1, 4, -1, -1)),
])  # fmt: skip
def test_adapted_weights_are_the_four_channel_network_so_fed(how, fed) -> None:
    four, one = UNet(4, base=4, init="kaiming"), UNet(1, base=4)
    one.load_state_dict(adapt_input(four.state_dict(), how))
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(one(x), four(fed(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("how", "fed"), [
    ("slice_conv1", lambda x: x[:, :1]),
    ("zero_pad", lambda x: x[:, :1]),
    ("replicate", lambda x: x.mean(1, keepdim=True)),
])  # fmt: skip
def test_weights_of_one_channel_serve_four(how, fed) -> None:
    one, four = UNet(1, base=4, init="kaiming"), UNet(4, base=4)
    four.load_state_dict(adapt_input(one.state_dict(), how, 4))
    x = torch.randn(2, 4, 32, 32)
    torch.testing.assert_close(four(x), one(fed(x)), rtol=1e-4, atol=1e-5)
    same = adapt_input(four.state_dict(), how, 4)
    assert all(torch.equal(same[name], tensor) for name, tensor in four.state_dict().items())


def test_channels_last_and_bfloat16_give_the_same_features() -> None:
    net = UNet(base=8, init="kaiming").eval()
    x = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        plain = net.features(x, "conv5")
        net.to(memory_format=torch.channels_last)
        fast = net.features(x.to(memory_format=torch.channels_last), "conv5")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net.features(x.to(memory_format=torch.channels_last), "conv5")
    assert fast.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert (low.float() - plain).norm() < 0.02 * plain.norm()


def test_bad_requests_name_the_fix() -> None:
    net = UNet(base=2)
    with pytest.raises(ValueError, match=r"conv6.*use one of conv1"):
        net.features(torch.rand(1, 1, 32, 32), "conv6")
    with pytest.raises(ValueError, match="40 is not a multiple of 16"):
        net(torch.rand(1, 1, 40, 32))
    with pytest.raises(ValueError, match="0 is not a multiple"):
        tap_shape("conv5", 64, 0)
    with pytest.raises(ValueError, match="use tl or kaiming"):
        UNet(base=2, init="xavier")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no 'conv1\.0\.weight'; these are no weights"):
        adapt_input({}, "slice_conv1")
    with pytest.raises(ValueError, match="use slice_conv1"):
        adapt_input(UNet(4, base=2).state_dict(), "mean")  # type: ignore[arg-type]
