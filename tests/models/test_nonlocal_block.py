"""NonLocalBlock against Eq. (1)-(6), written out as a double loop over positions i and j in float64."""

import math
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import INSTANTIATIONS, Conventions
from nl_lightning.models.fast import use_kernels
from nl_lightning.models.nonlocal_block import Affine, NonLocalBlock, NonLocalConfig

Array = NDArray[np.float64]
RELEASE = Conventions(profile="release")
PAPER = Conventions(profile="paper")
# Odd sizes: the last row or column is left out of the pooled keys.
SIZES = {1: (7,), 2: (4, 5), 3: (3, 5, 4)}


def reference(block: NonLocalBlock, x: Tensor, sum_over: str, subsample: bool, profile: str) -> Array:
    """z of Eq. (6) for one x of (C, positions), or (C, T, H, W), from the parameters of `block` by name."""
    p = {name: value.detach().numpy() for name, value in block.state_dict().items()}
    clip: Array = x.movedim(0, -1).numpy()  # channels last, so that clip[i] is x_i

    def embed(name: str, maps: Array) -> Array:
        weight = p[f"{name}.weight"].reshape(p[f"{name}.weight"].shape[:2])
        embedded: Array = maps @ weight.T + p[f"{name}.bias"]
        return embedded

    def pool(maps: Array) -> Array:
        """Max over 2, or 2 x 2, neighbours in space."""
        for axis in range(maps.ndim - 1) if maps.ndim < 4 else (1, 2):
            pairs = maps.shape[axis] // 2
            even = np.take(maps, range(0, 2 * pairs, 2), axis)
            odd = np.take(maps, range(1, 2 * pairs, 2), axis)
            maps = np.maximum(even, odd)
        return maps

    # A time-only block compares a place with itself in other frames, so it has nothing to pool.
    shrink: Callable[[Array], Array] = pool if subsample and sum_over != "time" else lambda maps: maps
    gaussian = block.instantiation == "gaussian"
    if profile == "release":  # pool, then embed
        g = embed("g", shrink(clip))
        phi = shrink(clip) if gaussian else embed("phi", shrink(clip))
    else:  # embed, then pool
        g = shrink(embed("g", clip))
        phi = shrink(clip if gaussian else embed("phi", clip))
    theta = clip if gaussian else embed("theta", clip)
    scale = theta.shape[-1] ** -0.5 if profile == "release" else 1.0

    y = np.zeros((*clip.shape[:-1], g.shape[-1]))
    for i in np.ndindex(clip.shape[:-1]):
        among = [
            j
            for j in np.ndindex(g.shape[:-1])
            if sum_over == "spacetime"
            or (sum_over == "space" and (len(i) < 3 or j[0] == i[0]))
            or (sum_over == "time" and j[1:] == i[1:])
        ]
        total, c = np.zeros(g.shape[-1]), 0.0
        for j in among:  # Eq. (1)
            match block.instantiation:
                case "gaussian" | "embedded_gaussian":  # Eq. (2), (3)
                    f = math.exp(scale * theta[i] @ phi[j])
                    c += f
                case "dot_product":  # Eq. (4)
                    f = float(theta[i] @ phi[j])
                    c += 1
                case "concatenation":  # Eq. (5)
                    f = max(0.0, float(p["w_f"] @ np.concatenate([theta[i], phi[j]])))
                    c += 1
            total += f * g[j]
        y[i] = total / c

    normalised = (embed("W_z", y) - p["bn.running_mean"]) / np.sqrt(p["bn.running_var"] + 1e-5)
    z: Array = normalised * p["bn.weight"] + p["bn.bias"] + clip  # Eq. (6)
    return np.moveaxis(z, -1, 0)


def make(seed: int = 0, **kwargs: Any) -> NonLocalBlock:
    """A block in float64 and evaluation mode whose every parameter and statistic is random."""
    block = NonLocalBlock(**kwargs).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            random = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(random.abs() + 0.5 if name == "bn.running_var" else 0.5 * random)
    return block


def random_input(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shape and type checks of the tests, which a user doesn't have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


CASES = [
    (dimensions, sum_over)
    for dimensions in (1, 2, 3)
    for sum_over in ("space", "time", "spacetime")
    if not (sum_over == "time" and dimensions < 3)
]


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("subsample", [True, False], ids=["subsampled", "all"])
@pytest.mark.parametrize(("dimensions", "sum_over"), CASES)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_is_the_double_loop(instantiation: str, dimensions: int, sum_over: str, subsample: bool, profile: Any) -> None:
    block = make(
        channels=6,
        instantiation=instantiation,
        sum_over=sum_over,
        subsample=subsample,
        dimensions=dimensions,
        conventions=Conventions(profile=profile),
    )
    x = random_input(2, 6, *SIZES[dimensions])
    expected = np.stack([reference(block, one, sum_over, subsample, profile) for one in x])
    assert np.abs(expected - x.numpy()).max() > 0.1  # the block does something
    for kernels in ("definition", "fast"):
        with torch.no_grad():
            difference = np.abs(use_kernels(block, kernels)(x).numpy() - expected)  # type: ignore[arg-type]
        assert difference.max() < 1e-12, f"{kernels}: max {difference.max():.1e}, mean {difference.mean():.1e}"


@pytest.mark.parametrize("sum_over", ["space", "time", "spacetime"])
def test_memory_layout_does_not_matter(sum_over: str) -> None:
    block, x = make(channels=6, sum_over=sum_over), random_input(2, 6, *SIZES[3])
    torch.testing.assert_close(block(x), block(x.contiguous(memory_format=torch.channels_last_3d)))


def test_clips_of_a_batch_do_not_mix() -> None:
    block, x = make(channels=6), random_input(2, 6, *SIZES[3])
    torch.testing.assert_close(block(x)[1:], block(x[1:]))


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_starts_as_the_identity(instantiation: Any, profile: Any) -> None:
    block = NonLocalBlock(6, instantiation, conventions=Conventions(profile=profile))
    x = random_input(2, 6, *SIZES[3]).float()
    assert torch.equal(block.train()(x), x)
    assert torch.equal(block.eval()(x), x)


def test_another_gamma_does_not_start_as_the_identity() -> None:
    x = random_input(2, 6, *SIZES[3]).float()
    assert not torch.equal(NonLocalBlock(6, conventions=Conventions(nonlocal_gamma=1.0))(x), x)


@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_has_the_parameters_of_the_paper(instantiation: Any) -> None:
    block = NonLocalBlock(6, instantiation)
    names = {name.split(".")[0] for name, _ in block.named_parameters()}
    expected = {"g", "W_z", "bn"}
    if instantiation != "gaussian":
        expected |= {"theta", "phi"}
    if instantiation == "concatenation":
        expected |= {"w_f"}
    assert names == expected
    for name in expected & {"theta", "phi", "g"}:
        assert block.get_submodule(name).weight.shape == (3, 6, 1, 1, 1)
        assert block.get_submodule(name).bias.shape == (3,)
    assert block.W_z.weight.shape == (6, 3, 1, 1, 1)


@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_initialisation(instantiation: Any) -> None:
    torch.manual_seed(0)
    for conventions in (PAPER, RELEASE):
        block = NonLocalBlock(256, instantiation, conventions=conventions)
        for name, value in block.named_parameters():
            if name == "bn.weight" or name.endswith("bias"):
                assert not value.any(), name
            else:
                fan_in = value[0].numel() if value.ndim > 1 else value.numel()
                std = math.sqrt(2 / fan_in) if conventions is PAPER else 0.01
                sampling = 5 / math.sqrt(2 * value.numel())  # five standard errors of a standard deviation
                assert value.std().item() == pytest.approx(std, rel=sampling), name


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("sum_over", ["space", "time", "spacetime"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_gradients(instantiation: str, sum_over: str, profile: Any) -> None:
    block = make(
        channels=2,
        instantiation=instantiation,
        sum_over=sum_over,
        conventions=Conventions(profile=profile),
    )
    names = [name for name, _ in block.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        z: Tensor = torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))
        return z

    x = random_input(1, 2, 2, 2, 3).requires_grad_()
    parameters = [value.detach().requires_grad_() for value in block.parameters()]
    assert torch.autograd.gradcheck(call, (x, *parameters))


def test_only_gaussians_are_scaled() -> None:
    """The released code multiplies theta . phi by (their channels)^-0.5 before the softmax; Eq. (2)-(5) don't."""
    x = random_input(1, 6, *SIZES[3])
    scaled, plain = Conventions(profile="paper", scale=True), PAPER
    for instantiation in INSTANTIATIONS:
        with_scale = make(channels=6, instantiation=instantiation, conventions=scaled)
        without = make(channels=6, instantiation=instantiation, conventions=plain)
        assert torch.equal(with_scale(x), without(x)) == ("gaussian" not in instantiation)
        if instantiation == "embedded_gaussian":
            for parameter in without.theta.parameters():
                parameter.data /= math.sqrt(3)
            torch.testing.assert_close(with_scale(x), without(x))


def test_subsampling_leaves_a_quarter_of_the_pairs() -> None:
    block = make(channels=6)
    theta, phi, g = block.embed(random_input(1, 6, 3, 4, 6))
    assert theta.shape[2:] == (3, 4, 6)
    assert phi.shape[2:] == g.shape[2:] == (3, 2, 3)


def test_time_only_needs_time() -> None:
    with pytest.raises(ValueError, match="sum_over: a block over 2-D input has no time"):
        NonLocalBlock(6, sum_over="time", dimensions=2)


def test_unknown_words_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="instantiation: expected one of gaussian, .* not 'softmax'"):
        NonLocalConfig({"res4": [4]}, instantiation="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sum_over: expected one of space, .* not 'channels'"):
        NonLocalConfig({"res4": [4]}, sum_over="channels")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dimensions", "shape", "message"),
    [
        (3, (2, 6, 4, 8), r"expected a map \(N, 6, T, H, W\), not \(2, 6, 4, 8\)"),
        (3, (2, 5, 3, 4, 8), r"expected a map \(N, 6, T, H, W\), not \(2, 5, 3, 4, 8\)"),
        (2, (6, 4, 8), r"expected a map \(N, 6, H, W\), not \(6, 4, 8\)"),
        (1, (2, 8, 6), r"expected a map \(N, 6, L\), not \(2, 8, 6\)"),
        (3, (2, 6, 3, 1, 8), r"\(2, 6, 3, 1, 8\) is too small: subsampling needs 2 positions along each axis of space"),
        (1, (2, 6, 1), r"\(2, 6, 1\) is too small"),
        (3, (2, 6, 0, 4, 4), r"\(2, 6, 0, 4, 4\) is too small"),
    ],
)
@pytest.mark.parametrize("kernels", ["fast", "definition"])
def test_inputs_of_another_shape_are_refused_in_a_line(
    unchecked: None, kernels: Any, dimensions: int, shape: tuple[int, ...], message: str
) -> None:
    block = use_kernels(NonLocalBlock(6, dimensions=dimensions), kernels)
    with pytest.raises(UserError, match=f"^NonLocalBlock: {message}") as refused:
        block(torch.zeros(shape))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels: expected at least 1, not 0"),
        *(({"channels": value}, "channels: expected at least 1, not ") for value in (1.5, "64", None, True)),
        ({"subsample": "no"}, "subsample: expected one of True, False, not 'no'"),
        ({"conventions": "paper"}, r"conventions: expected Conventions\(...\), not 'paper'"),
        ({"dimensions": 4}, "dimensions: expected one of 1, 2, 3, not 4"),
        ({"sum_over": "places"}, "sum_over: expected one of space, time, spacetime, not 'places'"),
        ({"instantiation": "relu"}, "instantiation: expected one of gaussian, .*, not 'relu'"),
    ],
)
def test_arguments_out_of_range_are_refused(unchecked: None, arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        NonLocalBlock(**{"channels": 6, **arguments})


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (None, "a NoneType"),
        ((torch.zeros(1, 6, 4),), "a tuple"),
        (torch.zeros(1, 6, 4, dtype=torch.int64), "torch.int64"),
        (torch.zeros(1, 6, 4).to_sparse(), "torch.float32, torch.sparse_coo"),
    ],
)
@pytest.mark.parametrize("kernels", ["fast", "definition"])
def test_inputs_that_are_no_maps_are_refused(unchecked: None, kernels: Any, x: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"NonLocalBlock: expected a dense map of floats, not {said}"):
        use_kernels(NonLocalBlock(6, dimensions=1), kernels)(x)


def test_unknown_kernels_are_refused(unchecked: None) -> None:
    with pytest.raises(UserError, match="kernels: expected one of fast, definition, not 'foo'"):
        use_kernels(NonLocalBlock(6), "foo")  # type: ignore[arg-type]


def test_affine_is_the_bn_that_was_folded_into_it() -> None:
    torch.manual_seed(0)
    bn = nn.BatchNorm3d(5).eval()
    for tensor in (bn.weight, bn.bias, bn.running_mean):
        assert tensor is not None
        nn.init.normal_(tensor)
    assert bn.running_var is not None
    nn.init.uniform_(bn.running_var, 0.5, 2)
    affine = Affine(5)
    affine.weight = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
    assert bn.running_mean is not None
    affine.bias = bn.bias.detach() - bn.running_mean * affine.weight
    x = torch.randn(2, 5, 3, 4, 4)
    torch.testing.assert_close(affine(x), bn(x))


def test_nothing_of_affine_is_trained_and_everything_is_saved() -> None:
    affine = Affine(3)
    assert list(affine.parameters()) == []
    assert affine.state_dict().keys() == {"weight", "bias"}
