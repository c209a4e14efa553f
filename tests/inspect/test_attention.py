"""Rows of f/C against the whole matrix, which only the tests ever build."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.inspect.attention import attention_rows, block_named, dependence, input_of
from nl_lightning.models.conventions import INSTANTIATIONS, SUM_OVER, Conventions
from nl_lightning.models.nonlocal_block import NonLocalBlock, NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet

T, H, W = 3, 5, 4  # odd: the last row of a frame has no pooled key


def block_of(instantiation: str, sum_over: str = "spacetime", pool: str = "none") -> NonLocalBlock:
    torch.manual_seed(0)
    order: Any = None if pool == "none" else pool
    kind, among = cast(Any, instantiation), cast(Any, sum_over)
    block = NonLocalBlock(6, kind, among, pool != "none", conventions=Conventions(subsample=order))
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return block.double()


def matrix(block: NonLocalBlock, x: Tensor) -> Tensor:
    """f(x_i, x_j) / C(x) of every i (T, H, W) and j (T, hk, wk), by the block's own forward pass; 0 outside the sum.

    g becomes the indicator of one j at a time, and y_i is then what i gives it.
    """
    theta, phi, _ = block.embed(x)
    size, keys = theta.shape[2:], phi.shape[2:]
    found = torch.zeros(*size, *keys, dtype=x.dtype)
    pairs = block.pairwise(block.sets(theta), block.sets(phi))
    for j in itertools.product(*map(range, keys)):
        g = torch.zeros(1, 1, *keys, dtype=x.dtype)
        g[0, 0, *j] = 1
        found[..., *j] = block.unite(pairs @ block.sets(g), x)[0, 0]
    return found


@pytest.mark.parametrize("pool", ["before", "after", "none"])
@pytest.mark.parametrize("sum_over", SUM_OVER)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_rows_are_those_of_the_whole_matrix(instantiation: str, sum_over: str, pool: str) -> None:
    block = block_of(instantiation, sum_over, pool)
    x = torch.randn(1, 6, T, H, W, dtype=torch.float64)
    queries = [(0, 0, 0), (1, 4, 3), (2, 2, 1)]
    whole = matrix(block, x)
    rows = attention_rows(block, x, queries)
    expected = torch.stack([whole[query] for query in queries])
    difference = (rows - expected).abs()
    print(f"max {difference.max():.1e}, mean {difference.mean():.1e}")
    assert difference.max() < 1e-12
    assert rows.any(dim=(1, 2, 3)).all() or instantiation == "concatenation"  # ReLU may leave nothing
    if sum_over != "time" and pool != "none":
        assert rows.shape == (3, T, H // 2, W // 2)
    if sum_over == "space":
        assert not rows[0, 1:].any()
    if sum_over == "time":
        assert not rows[0, :, 1:].any()


def test_groups_of_frames_don_t_see_each_other() -> None:
    block = block_of("embedded_gaussian", pool="after")
    x = torch.randn(2, 6, T, H, W, dtype=torch.float64)  # two groups of T frames
    (row,) = attention_rows(block, x, [(T + 1, 2, 3)])
    assert row.shape == (2 * T, H // 2, W // 2)
    assert not row[:T].any()
    assert torch.equal(row[T:], attention_rows(block, x[1:], [(1, 2, 3)])[0])


def test_dependence_is_0_for_one_map_and_1_for_maps_apart() -> None:
    block = block_of("embedded_gaussian")
    x = torch.randn(1, 6, T, H, W, dtype=torch.float64)
    generator = torch.Generator()
    torch.nn.init.zeros_(block.theta.weight)  # every query is the same
    assert dependence(block, x, (0, 0, 0), generator.manual_seed(0)) == pytest.approx(0, abs=1e-12)

    block = block_of("gaussian")
    far = 100 * torch.eye(T * H * W, dtype=torch.float64).view(1, T * H * W, T, H, W)  # each like itself only
    block.g = torch.nn.Conv3d(T * H * W, 1, 1).double()
    assert dependence(block, far, (0, 0, 0), generator.manual_seed(0)) == pytest.approx(1)


def test_dependence_is_the_mean_over_pairs() -> None:
    block = block_of("dot_product", "time")  # T queries at a place: all pairs are drawn
    x = torch.randn(1, 6, T, H, W, dtype=torch.float64)
    maps = attention_rows(block, x, [(t, 2, 1) for t in range(T)])[:, :, 2, 1].abs().numpy()
    maps = maps / maps.sum(axis=1, keepdims=True)

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log2(p)).sum())

    pairs = [
        entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2 for p, q in itertools.combinations(maps, 2)
    ]  # fmt: skip
    found = dependence(block, x, (0, 2, 1), torch.Generator().manual_seed(3))
    assert found == pytest.approx(np.mean(pairs))
    assert 0 < found < 1


def test_maps_of_zeros_count_as_uniform() -> None:
    block = block_of("concatenation")
    torch.nn.init.zeros_(block.w_f)
    x = torch.randn(1, 6, T, H, W, dtype=torch.float64)
    assert dependence(block, x, (0, 0, 0), torch.Generator().manual_seed(0)) == pytest.approx(0, abs=1e-12)


def small(non_local: NonLocalConfig | None, **conventions: int) -> VideoResNet:
    torch.manual_seed(0)
    config = ResNetConfig(
        non_local=non_local, num_classes=4, width=1 / 64, temporal_strides=(1, 1, 1),
        conventions=Conventions(**conventions),  # type: ignore[arg-type]
    )  # fmt: skip
    return VideoResNet(config).eval()


def test_the_input_of_a_block_is_what_it_is_given() -> None:
    net = small(NonLocalConfig({"res3": [1], "res4": [0]}), res3_group=2)
    clip = torch.randn(1, 3, 4, 32, 32)
    x = input_of(net, block_named(net, "res3.1"), clip)
    assert x.shape[0] == 2  # groups of 2 of the 4 frames
    net.res3.blocks[1].register_forward_hook(lambda _, __, output: seen.append(output))
    seen: list[Tensor] = []
    with torch.no_grad():
        net(clip)
    assert torch.equal(x.transpose(0, 1).flatten(1, 2), seen[0][0])
    assert block_named(net, "res4.0") is net.res4.non_local["0"]


def test_a_block_that_isn_t_there_is_named() -> None:
    with pytest.raises(UserError, match="no non-local block 'res3.2'; it has res3.1, res4.0"):
        block_named(small(NonLocalConfig({"res3": [1], "res4": [0]})), "res3.2")
    with pytest.raises(UserError, match="has no non-local block$"):
        block_named(small(None), "res3.1")
