"""Muon against definitions and torch's own; the linear schedule; the rates of loaded and of new weights."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train import start
from nl_lightning.train.muon import QUINTIC, MuonAdamW, orthogonal
from nl_lightning.train.optimization import Schedule, optimize, paper_sgd, parameter_groups


def by_singular_values(x: Tensor, steps: int = 5) -> Tensor:
    """The polynomial applied to the singular values of one matrix."""
    u, s, v = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = QUINTIC[0] * s + QUINTIC[1] * s**3 + QUINTIC[2] * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (1, 5)])
def test_orthogonal_is_a_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, *shape)
    torch.testing.assert_close(orthogonal(x).double(), torch.stack([by_singular_values(m) for m in x]), **CLOSE)
    assert torch.linalg.svdvals(orthogonal(x)).min() > 0.6
    assert torch.linalg.svdvals(orthogonal(x)).max() < 1.3
    assert orthogonal(torch.zeros(1, *shape)).abs().max() == 0


CLOSE: dict[str, float] = {"rtol": 1e-3, "atol": 1e-4}


def trained(params: list[Tensor], optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    """Descend with gradients that are the same for parameters of the same number of values."""
    for step in range(steps):
        for p in params:
            p.grad = torch.randn(p.numel(), generator=torch.Generator().manual_seed(step + p.numel())).view(p.shape)
        optimizer.step()


def test_kernels_move_by_muon_and_all_else_by_adamw() -> None:
    """By Muon's definition, as torch's own does in bfloat16; as AdamW alone would."""
    torch.manual_seed(0)
    kernels = [nn.Parameter(torch.randn(8, 3, 1, 3, 3)), nn.Parameter(torch.randn(6, 4, 1, 1, 1))]
    others = [nn.Parameter(torch.randn(5, 7)), nn.Parameter(torch.randn(9))]
    defined = [p.detach().flatten(1).double() for p in kernels]
    torchs = [nn.Parameter(p.detach().flatten(1).clone()) for p in kernels]
    alone = [nn.Parameter(p.detach().clone()) for p in others]
    trained([*kernels, *others], MuonAdamW([{"params": [*kernels, *others]}], adamw_lr=0.03))
    trained(torchs, torch.optim.Muon(torchs, lr=0.02, weight_decay=0.0))
    trained(alone, torch.optim.AdamW(alone, lr=0.03, betas=(0.9, 0.98), weight_decay=0.02))
    for i, w in enumerate(defined):
        mean = torch.zeros_like(w)
        for step in range(4):
            g = torch.randn(w.numel(), generator=torch.Generator().manual_seed(step + w.numel())).view(w.shape)
            mean = 0.95 * mean + 0.05 * g
            w -= 0.02 * max(1, w.shape[0] / w.shape[1]) ** 0.5 * by_singular_values(0.05 * g + 0.95 * mean)
        torch.testing.assert_close(kernels[i].detach().flatten(1).double(), w, **CLOSE)
        torch.testing.assert_close(kernels[i].detach().flatten(1), torchs[i].detach(), rtol=0, atol=2e-3)
    for ours, theirs in zip(others, alone, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_optimiser_has_the_state_of_both_and_goes_on_from_it() -> None:
    def made() -> tuple[list[Tensor], MuonAdamW]:
        torch.manual_seed(0)
        params: list[Tensor] = [nn.Parameter(torch.randn(4, 3, 1, 3, 3)), nn.Parameter(torch.randn(9))]
        return params, MuonAdamW(params)

    whole, optimizer = made()
    trained(whole, optimizer, 3)
    state, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in whole]
    trained(whole, optimizer, 2)
    again, resumed = made()
    resumed.load_state_dict(state)
    for p, w in zip(again, weights, strict=True):
        p.data.copy_(w)
    trained(again, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    whole[0].grad = None  # a frozen kernel stays
    before = whole[0].detach().clone()
    loss = optimizer.step(lambda: whole[1].sum().backward() or 3.0)
    assert loss == 3.0
    assert torch.equal(whole[0], before)
    optimizer.zero_grad()
    assert whole[1].grad is None
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": 1}, {"steps": 0}, {"adamw_lr": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))]}]
    with pytest.raises(UserError, match=r"^model\.optimizer: "):
        optimize(lambda params: MuonAdamW(params, **wrong), groups, Schedule(), 10)


def test_linear_schedule() -> None:
    schedule = Schedule("linear", warmup=0.1)
    factors = [schedule.factor(i, 100) for i in (0, 9, 10, 55, 99)]
    assert factors == pytest.approx([1 / 11, 10 / 11, 1, 0.5, 1 / 90])
    late = Schedule("linear", warmup=0.05, decay=0.4)
    assert [late.factor(i, 100) for i in (5, 59, 80, 99)] == pytest.approx([1, 1, 0.5, 0.025])
    with pytest.raises(UserError, match=r"schedule.decay is 0.95: expected 1e-09 to 0.9"):
        Schedule("linear", warmup=0.1, decay=0.95)


def test_a_training_without_an_end_has_steps() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))]}]
    steps: Any = optimize(paper_sgd, groups, Schedule(milestones=(5,)), math.inf)
    rates = steps["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [rates(0), rates(5)] == pytest.approx([1, 0.1])
    for schedule in (Schedule("cosine"), Schedule("linear"), Schedule(warmup=0.1)):
        with pytest.raises(UserError, match=r"^model\.schedule: .* this training has no end: set trainer\.max_epochs"):
            optimize(paper_sgd, groups, schedule, math.inf)


NL = ResNetConfig(width=1 / 64, num_classes=3, non_local=NonLocalConfig({"res4": [4]}))


def test_loaded_weights_have_a_rate_of_their_own() -> None:
    net = VideoResNet(NL)
    loaded = {name for name in net.state_dict() if ".non_local." not in name and not name.startswith("fc.")}
    groups = parameter_groups(net, False, loaded, 0.1)
    optimizer: Any = optimize(MuonAdamW, groups, Schedule("linear"), 10)["optimizer"]  # type: ignore[call-overload,index]
    names = {id(p): name for name, p in net.named_parameters()}
    rates = {names[id(p)]: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == {name for name, _ in net.named_parameters()}
    for name, p in net.named_parameters():
        assert rates[name] == pytest.approx((0.02 if p.ndim > 2 else 0.01) * (0.1 if name in loaded else 1)), name
    assert len(parameter_groups(net, False, loaded, 1.0)) == 2  # those of every checkpoint from before


def test_a_two_dimensional_network_is_inflated(tmp_path: Path) -> None:
    """Its other classes are left behind where the classifier may be new."""
    plain = VideoResNet(ResNetConfig(width=1 / 64, num_classes=5))
    torch.save({"state_dict": {f"net.{k}": v for k, v in plain.state_dict().items()}}, tmp_path / "a.ckpt")
    net = VideoResNet(ResNetConfig(**{**vars(NL), "inflate": "3x1x1"}))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError, match="has 5 classes, and this network 3"):
        start.init_from(net, tmp_path / "a.ckpt", ["non_local"])
    loaded = start.load(net, None, str(tmp_path / "a.ckpt"), ["non_local", "fc"], (), speaks=False)
    assert loaded == {name for name in before if ".non_local." not in name and not name.startswith("fc.")}
    for name, tensor in net.state_dict().items():
        theirs = plain.state_dict().get(name)
        if name not in loaded or theirs is None:
            assert torch.equal(tensor, before[name])
        elif tensor.shape == theirs.shape:
            assert torch.equal(tensor, theirs)
        else:  # every frame the same, and a still video is seen as the 2-D network sees its frame
            assert torch.equal(tensor, tensor[:, :, :1].expand_as(tensor))
            torch.testing.assert_close(tensor.sum(2, keepdim=True), theirs)
