from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medaug.models.classifiers import (
    CLASSIFIERS,
    class_logits,
    cnn12,
    feature_cnn,
    linear,
    resnet50,
    separable_cnn,
)
from medaug.models.resnet import ResNet


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("shape", "count"), [
    ((1024, 15, 15), 1_290_945), ((512, 30, 30), 701_121),
    ((256, 60, 60), 406_209), ((128, 120, 120), 258_753),
])  # fmt: skip
def test_feature_cnn_parameter_counts(shape, count: int) -> None:
    with torch.device("meta"):
        net = feature_cnn(shape)
        assert _count(net) == count
        assert net(torch.empty(4, *shape)).shape == (4, 1)


@pytest.mark.parametrize(("size", "count"), [
    (32, 8_685_283), (64, 21_268_195), (128, 71_599_843), (224, 210_011_875),
])  # fmt: skip
def test_cnn12_parameter_counts(size: int, count: int) -> None:
    with torch.device("meta"):
        assert _count(cnn12((1, size, size), 3)) == count
        assert _count(cnn12((1, size, size), 2)) == count - 2049


def test_separable_cnn_parameter_count() -> None:
    with torch.device("meta"):
        net = separable_cnn((3, 224, 224))
        assert _count(net) == 6_640_226
        assert net[:-13](torch.empty(1, 3, 224, 224)).shape == (1, 256 * 7 * 7)


def test_resnet50_is_the_standard_one() -> None:
    """Parameters and multiply-adds at 224 x 224 are the well-known ones of ResNet-50 v1.5."""
    with torch.device("meta"):
        net = ResNet(50, 3, 1000)
        assert _count(net) == 25_557_032
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, 224, 224))
        assert counter.get_total_flops() == 2 * 4_089_184_256
        stem = net.stem(torch.empty(1, 3, 224, 224))
        assert stem.shape == (1, 64, 56, 56)
        assert net.stages(stem).shape == (1, 2048, 7, 7)
        assert _count(resnet50((1, 32, 32))) == 25_557_032 - 2 * 64 * 49 - 2049 * 998


def test_bottleneck_is_relu_of_residual_plus_shortcut() -> None:
    block = ResNet(50, 1, 2).stages[0].eval()
    x = torch.randn(2, 64, 8, 8)
    conv1, bn1, _, conv2, bn2, _, conv3, bn3 = block.residual
    h = F.relu(bn1(conv1(x)))
    h = F.relu(bn2(conv2(h)))
    expected = F.relu(bn3(conv3(h)) + block.shortcut[1](block.shortcut[0](x)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("kind", "shape"), [
    ("feature_cnn", (8, 15, 15)), ("feature_cnn", (3, 4, 4)), ("feature_cnn", (1, 30, 20)),
    ("linear", (8, 15, 15)), ("linear", (8, 1, 1)),
    ("resnet50", (1, 32, 32)), ("cnn12", (1, 20, 36)), ("separable_cnn", (3, 40, 64)),
    ("mlp", (3, 4, 5)), ("mlp", (70,)),
])  # fmt: skip
@pytest.mark.parametrize("n_out", [2, 3])
def test_every_classifier_trains_on_its_shape(kind: str, shape, n_out: int) -> None:
    net = CLASSIFIERS[kind](shape, n_out, 0.5)
    logits = net(torch.randn(4, *shape))
    assert logits.shape == (4, 1 if kind == "feature_cnn" and n_out == 2 else n_out)
    F.cross_entropy(class_logits(logits), torch.tensor([0, 1, 1, 0])).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_dropout_is_the_key_and_off_in_eval(kind: str) -> None:
    net = CLASSIFIERS[kind]((3, 32, 32), 2, 0.5)
    rates = [m.p for m in net.modules() if isinstance(m, nn.Dropout)]
    published = {"feature_cnn": [0.5, 0.5], "cnn12": [0.5, 0.5], "mlp": [0.5, 0.5],
                 "separable_cnn": [0.2, 0.2, 0.7, 0.5, 0.3]}  # fmt: skip
    assert rates == pytest.approx(published.get(kind, [0.5]))
    none = CLASSIFIERS[kind]((3, 32, 32), 2, 0.0)
    assert all(m.p == 0 for m in none.modules() if isinstance(m, nn.Dropout))
    net.eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)


def test_dropout_comes_before_the_last_layer_of_resnet50() -> None:
    net = resnet50((1, 32, 32), dropout=0.4)
    seen: list[torch.Tensor] = []
    net.fc.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    net(torch.randn(4, 1, 32, 32))
    net.eval()
    net(torch.randn(4, 1, 32, 32))
    dropped = [(h == 0).float().mean().item() for h in seen]
    assert dropped[0] - dropped[1] > 0.2


def test_linear_probe_reads_the_spatial_mean_only() -> None:
    net = linear((5, 4, 4), 3).eval()
    x = torch.randn(2, 5, 4, 4)
    expected = x.mean(dim=(2, 3)) @ net[-1].weight.T + net[-1].bias
    torch.testing.assert_close(net(x), expected)


def test_pooling_of_feature_cnn_is_the_identity_at_15() -> None:
    net = feature_cnn((2, 15, 15)).eval()
    x = torch.randn(2, 2, 15, 15)
    h = net[:8](x)
    assert h.shape[2:] == (3, 3)
    torch.testing.assert_close(net[8](h), h, rtol=0, atol=0)


def test_one_logit_is_a_two_class_softmax() -> None:
    logit = torch.tensor([[-2.0], [0.5], [30.0]])
    label = torch.tensor([0, 1, 0])
    both = class_logits(logit)
    torch.testing.assert_close(both.softmax(1)[:, 1], logit[:, 0].sigmoid())
    torch.testing.assert_close(
        F.cross_entropy(both, label),
        F.binary_cross_entropy_with_logits(logit[:, 0], label.float()),
    )
    three = torch.randn(2, 3)
    assert class_logits(three) is three


def test_separable_convolution_has_no_activation_between_depth_and_point() -> None:
    net = separable_cnn((3, 32, 32))
    kinds = [type(m).__name__ for m in net[5:13]]
    assert kinds == ["Conv2d", "Conv2d", "ReLU", "Conv2d", "Conv2d", "ReLU", "BatchNorm2d",
                     "MaxPool2d"]  # fmt: skip
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_bad_requests_name_the_fix() -> None:
    with pytest.raises(ValueError, match="feature_cnn wants at least 4x4, not 3x9"):
        feature_cnn((8, 3, 9))
    with pytest.raises(ValueError, match="cnn12 wants at least 8x8"):
        cnn12((1, 7, 7))
    with pytest.raises(ValueError, match="separable_cnn wants at least 32x32"):
        separable_cnn((3, 31, 31))
    with pytest.raises(ValueError, match=r"use <= 0\.7"):
        separable_cnn((3, 32, 32), dropout=0.8)
