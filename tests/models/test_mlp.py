from __future__ import annotations

import pytest
import torch

from medaug.models.losses import gradient_penalty
from medaug.models.mlp import MlpCritic, MlpGenerator, VelocityMlp


def test_generator_reads_the_label_in_the_first_entries() -> None:
    net = MlpGenerator(dim=5, n_classes=3, nz=8, hidden=16)
    z, label = torch.randn(4, 8), torch.tensor([0, 2, 1, 1])
    x = net(z, label)
    assert x.shape == (4, 5)
    other = z.clone()
    other[:, :3] = 7.0
    torch.testing.assert_close(net(other, label), x, rtol=0, atol=0)
    assert not torch.equal(net(z, (label + 1) % 3), x)
    expected = net.layers(torch.cat((torch.eye(3)[label], z[:, 3:]), dim=1))
    torch.testing.assert_close(x, expected, rtol=0, atol=0)


def test_generator_of_non_negative_features() -> None:
    net = MlpGenerator(dim=5, n_classes=2, nz=8, hidden=16, out_act="relu")
    assert net(torch.randn(50, 8), torch.zeros(50, dtype=torch.long)).min() == 0


def test_critic_tells_labels_apart_and_takes_a_penalty() -> None:
    net = MlpCritic(dim=5, n_classes=2, hidden=16)
    x, label = torch.randn(4, 5), torch.tensor([0, 1, 1, 0])
    out = net(x, label)
    assert out.adv.shape == (4,)
    assert not torch.equal(net(x, 1 - label).adv, out.adv)
    torch.testing.assert_close(net(x, label, parts=2).adv, out.adv, rtol=0, atol=0)
    gradient_penalty(lambda rows: net(rows, label).adv, x, -x, torch.rand(4)).backward()
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)


def test_velocity_starts_at_zero_and_learns_a_known_field() -> None:
    """The straight field from N(0, 1) to a point c is (c - x) / (1 - t)."""
    net = VelocityMlp(dim=2, n_classes=2, hidden=32, depth=2)
    centre = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    probe = torch.randn(64, 2)
    assert net(probe, torch.rand(64), torch.zeros(64, dtype=torch.long)).abs().max() == 0

    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(300):
        label = torch.randint(2, (128,))
        noise, t = torch.randn(128, 2), torch.rand(128)
        x = torch.lerp(noise, centre[label], t[:, None])
        loss = (net(x, t, label) - (centre[label] - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    t = torch.full((64,), 0.3)
    label = torch.arange(64) % 2
    x = torch.lerp(probe, centre[label], t[:, None])
    with torch.no_grad():
        error = net(x, t, label) - (centre[label] - x) / 0.7
    assert error.square().mean().sqrt() < 0.3


def test_velocity_depends_on_time_class_and_no_class() -> None:
    net = VelocityMlp(dim=3, n_classes=2, hidden=16)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, t = torch.randn(4, 3), torch.full((4,), 0.5)
    label = torch.zeros(4, dtype=torch.long)
    v = net(x, t, label)
    assert v.shape == (4, 3)
    for other in (net(x, t + 0.2, label), net(x, t, label + 1), net(x, t, label + 2)):
        assert (other - v).abs().max() > 1e-3
    with pytest.raises(IndexError):
        net(x, t, label + 3)


def test_time_frequencies_are_constants_not_weights() -> None:
    net = VelocityMlp(dim=3, n_classes=2, hidden=16)
    assert net.omega[0].item() == pytest.approx(torch.pi)
    assert net.omega[-1].item() == pytest.approx(100 * torch.pi)
    assert "omega" not in net.state_dict()


def test_latent_must_leave_room_for_noise() -> None:
    with pytest.raises(ValueError, match="nz: 2 leaves no noise"):
        MlpGenerator(dim=5, n_classes=2, nz=2)
