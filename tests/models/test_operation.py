"""Every form of the non-local operation against its definition, and the choice among them."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nl_lightning.models import operation
from nl_lightning.models.conv_norm import fold
from nl_lightning.models.conventions import INSTANTIATIONS, Conventions
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.operation import Sizes, form_of

PROFILES = ("paper", "release")
MODES = ("spacetime", "space", "time")


@pytest.fixture
def few_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms for large maps are taken for small ones too."""
    monkeypatch.setattr(operation, "FEW_KEYS", 0)
    monkeypatch.setattr(operation, "FEW_PAIRS", {"embedded_gaussian": 0, "gaussian": 0})
    monkeypatch.setattr(operation, "costs", lambda instantiation, sizes: {"associated": 0, "pairs": 1})


def block(instantiation: Any, sum_over: Any, subsample: bool, profile: Any, channels: int = 6) -> NonLocalBlock:
    torch.manual_seed(0)
    made = NonLocalBlock(channels, instantiation, sum_over, subsample, conventions=Conventions(profile=profile))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def assert_same(made: NonLocalBlock, x: Tensor, **close: Any) -> None:
    """Same y, and same gradients for x and every parameter that y depends on."""
    x = x.detach().requires_grad_()
    wanted = [x, *(p for name, p in made.named_parameters() if not name.startswith(("W_z", "bn")))]
    found = []
    for y in (made.operation(x), made.definition(x)):
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        found.append((y.detach(), *torch.autograd.grad((y * weights).sum(), wanted)))
    torch.testing.assert_close(*found, **close)


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("sum_over", MODES)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
@settings(max_examples=5, deadline=None)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 5), st.integers(2, 5)),
    layout=st.sampled_from(["contiguous", "channels-last", "strided"]),
)
def test_is_the_definition(
    instantiation: Any, sum_over: Any, subsample: bool, profile: Any, size: tuple[int, ...], layout: str
) -> None:
    n, t, h, w = size
    x = torch.randn(n, 6, t, h, 2 * w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x[..., ::2] if layout == "strided" else x[..., :w].contiguous()
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    assert_same(block(instantiation, sum_over, subsample, profile).double(), x)


CARRIED = [*((instantiation, "keys") for instantiation in INSTANTIATIONS), ("dot_product", "map")]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A form that makes no y is taken, whatever it costs."""
    monkeypatch.setattr(operation, "costs", lambda instantiation, sizes: {form: 0})


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("sum_over", MODES)
@pytest.mark.parametrize(("instantiation", "form"), CARRIED)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 5), st.integers(2, 5)),
    channels_last=st.booleans(),
    training=st.booleans(),
)
def test_w_z_of_y_is_that_of_the_definition(
    instantiation: Any, form: str, sum_over: Any, subsample: bool, profile: Any, size: Any, channels_last: bool,
    training: bool,
) -> None:  # fmt: skip
    """The whole block: z, all gradients, and BN's running statistics."""
    n, *positions = size
    x = torch.randn(n, 6, *positions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last_3d) if channels_last else x
    made = block(instantiation, sum_over, subsample, profile).double().train(training)
    assert made.form(x.shape) == form
    found: list[Any] = []
    for way in ("forward", "by_definition"):
        one, given = copy.deepcopy(made), x.detach().clone().requires_grad_()
        z = getattr(one, way)(given)
        weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
        gradients = torch.autograd.grad((z * weights).sum(), [given, *one.parameters()], allow_unused=True)
        found.append((z.detach(), [g for g in gradients if g is not None], one.state_dict()))
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("instantiation", "form"), CARRIED)
def test_w_z_of_y_is_as_exact_in_lower_precision(
    instantiation: Any, form: str, dtype: torch.dtype, tolerance: float, profile: Any
) -> None:
    """What is added to x, relative to its largest value; the reference is the definition in double precision.

    Exponents are small: large ones make the definition itself inexact in half precision.
    """
    x = 0.5 * torch.randn(1, 6, 2, 8, 8, generator=torch.Generator().manual_seed(0)).relu()
    made = block(instantiation, "spacetime", True, profile).eval()
    exact = copy.deepcopy(made).double().by_definition(x.double()) - x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        added = made._w_z_of_y(x, form, *fold(made.W_z, made.bn))
    assert ((added.double() - exact).abs().max() / exact.abs().max()).item() < tolerance


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_one_position(instantiation: Any) -> None:
    assert_same(block(instantiation, "spacetime", False, "paper").double(), torch.randn(1, 6, 1, 1, 1).double())


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e3], ids=["zero", "tiny", "huge"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_extreme_inputs(instantiation: Any, size: float) -> None:
    x = size * torch.randn(1, 6, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = block(instantiation, "spacetime", True, "release").double()
    y = made.operation(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y, made.definition(x))


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_is_as_exact_in_lower_precision(instantiation: Any, dtype: torch.dtype, tolerance: float, profile: Any) -> None:
    """Relative to the largest value; the reference is the definition in double precision."""
    x = torch.randn(1, 6, 2, 8, 8, generator=torch.Generator().manual_seed(0)).relu()
    made = block(instantiation, "spacetime", True, profile)
    exact = copy.deepcopy(made).double().definition(x.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = made.operation(x)
    error = ((y.double() - exact).abs().max() / exact.abs().max()).item()
    assert error < tolerance


@pytest.mark.parametrize("side", [4, 24], ids=["few keys", "many keys"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_a_network_in_half_precision(instantiation: Any, side: int) -> None:
    """Weights and maps in bf16, as of ``--trainer.precision=bf16-true``."""
    made = block(instantiation, "spacetime", True, "release").bfloat16()
    x = torch.randn(1, 6, 4, side, side).bfloat16().requires_grad_()
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_same_input_same_bits() -> None:
    made = block("concatenation", "spacetime", True, "release")
    x = torch.randn(1, 6, 4, 24, 24)
    assert made.form(x.shape) == "sorted"
    assert torch.equal(made(x), copy.deepcopy(made)(x))


@pytest.mark.parametrize(
    ("instantiation", "sizes", "cpu", "cuda"),
    [
        # One clip of 32 frames of 224 x 224: res2, res3 and res4, subsampled, then all keys.
        ("embedded_gaussian", Sizes(1, 25088, 6272, 128, 128, 256), "attention", "attention"),
        ("embedded_gaussian", Sizes(1, 784, 196, 512, 512, 1024), "keys", "attention"),
        ("gaussian", Sizes(1, 25088, 6272, 256, 128, 256), "attention", "attention"),
        ("gaussian", Sizes(1, 3136, 784, 512, 256, 512), "pairs", "attention"),
        ("gaussian", Sizes(1, 784, 196, 1024, 512, 1024), "keys", "attention"),
        ("dot_product", Sizes(1, 25088, 6272, 128, 128, 256), "map", "map"),
        ("dot_product", Sizes(1, 3136, 784, 256, 256, 512), "map", "map"),
        ("dot_product", Sizes(1, 784, 196, 512, 512, 1024), "keys", "keys"),
        ("concatenation", Sizes(1, 3136, 784, 256, 256, 512), "sorted", "sorted"),
        ("concatenation", Sizes(1, 784, 196, 512, 512, 1024), "keys", "keys"),
        ("embedded_gaussian", Sizes(1, 784, 784, 512, 512, 1024), "pairs", "attention"),
        ("dot_product", Sizes(1, 3136, 3136, 256, 256, 512), "map", "map"),
        ("dot_product", Sizes(1, 784, 784, 512, 512, 1024), "associated", "associated"),
        ("dot_product", Sizes(784, 4, 4, 512, 512, 1024), "pairs", "pairs"),  # time only
    ],
)
def test_form(instantiation: Any, sizes: Sizes, cpu: str, cuda: str) -> None:
    assert form_of(instantiation, sizes, "cpu") == cpu
    assert form_of(instantiation, sizes, "cuda") == cuda
    assert form_of(instantiation, sizes, "cuda", half=True) == cuda


def test_form_in_half_precision() -> None:
    """On a CPU the pairs of res3 are made, and those of res2 or of long clips are not."""
    assert form_of("embedded_gaussian", Sizes(1, 3136, 784, 256, 256, 512), "cpu") == "attention"
    assert form_of("embedded_gaussian", Sizes(1, 3136, 3136, 256, 256, 512), "cpu", half=True) == "pairs"
    assert form_of("embedded_gaussian", Sizes(1, 12544, 3136, 256, 256, 512), "cpu", half=True) == "attention"
    assert form_of("gaussian", Sizes(1, 25088, 6272, 256, 128, 256), "cpu", half=True) == "attention"


@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("sum_over", MODES)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_sizes_are_those_of_the_maps(instantiation: Any, sum_over: Any, subsample: bool) -> None:
    made = block(instantiation, sum_over, subsample, "paper")
    x = torch.randn(2, 6, 3, 5, 4)
    theta, phi, g = map(made._sets, made.embed(x))
    n, sets, queries, channels = theta.shape
    assert made.sizes(x.shape) == Sizes(n * sets, queries, phi.shape[2], channels, g.shape[3], 6)
