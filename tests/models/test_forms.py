"""Every form of Eq. (1) against its definition, and the choice among them."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nl_lightning.models import fast
from nl_lightning.models.conventions import INSTANTIATIONS, Conventions
from nl_lightning.models.fast import FastNonLocalBlock, use_kernels
from nl_lightning.models.forms import SortedReLU, attention, form_of, sorted_average

PROFILES = ("paper", "release")
MODES = ("spacetime", "space", "time")
FORMS = {
    "gaussian": "attention",
    "embedded_gaussian": "attention",
    "dot_product": "associated",
    "concatenation": "sorted",
}


@pytest.fixture
def few_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms for large maps are taken for small ones too."""
    monkeypatch.setattr(fast, "form_of", lambda instantiation, *_: FORMS[instantiation])


def block(instantiation: Any, sum_over: Any, subsample: bool, profile: Any, channels: int = 6) -> FastNonLocalBlock:
    torch.manual_seed(0)
    made = FastNonLocalBlock(channels, instantiation, sum_over, subsample, conventions=Conventions(profile=profile))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def by_definition(made: FastNonLocalBlock) -> torch.nn.Module:
    return use_kernels(copy.deepcopy(made), "definition")


def assert_same(made: FastNonLocalBlock, x: Tensor, **close: Any) -> None:
    """Same z, same gradients for x and every parameter, same state of BN."""
    found = []
    for one in (copy.deepcopy(made), by_definition(made)):
        given_x = x.detach().requires_grad_()
        z = one(given_x)
        weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
        gradients = torch.autograd.grad((z * weights).sum(), [given_x, *one.parameters()], allow_unused=True)
        found.append((z.detach(), [g for g in gradients if g is not None], one.state_dict()))
    torch.testing.assert_close(*found, **close)


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("sum_over", MODES)
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 5), st.integers(2, 5)),
    layout=st.sampled_from(["contiguous", "channels-last", "strided"]),
    training=st.booleans(),
)
def test_is_the_definition(
    instantiation: Any, sum_over: Any, subsample: bool, profile: Any, size: Any, layout: str, training: bool
) -> None:
    n, t, h, w = size
    x = torch.randn(n, 6, t, h, 2 * w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x[..., ::2] if layout == "strided" else x[..., :w].contiguous()
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last_3d)
    assert_same(block(instantiation, sum_over, subsample, profile).double().train(training), x)


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_one_position(instantiation: Any) -> None:
    made = block(instantiation, "spacetime", False, "paper").double().eval()
    assert_same(made, torch.randn(1, 6, 1, 1, 1).double())


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e3], ids=["zero", "tiny", "huge"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_extreme_inputs(instantiation: Any, size: float) -> None:
    x = size * torch.randn(1, 6, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = block(instantiation, "spacetime", True, "release").double().eval()
    z = made(x)
    assert z.isfinite().all()
    torch.testing.assert_close(z, by_definition(made)(x))


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_is_as_exact_in_lower_precision(instantiation: Any, dtype: torch.dtype, tolerance: float, profile: Any) -> None:
    """What is added to x, relative to its largest value; the reference is the definition in double precision.

    Exponents are small: large ones make the definition itself inexact in half precision.
    """
    x = 0.5 * torch.randn(1, 6, 2, 8, 8, generator=torch.Generator().manual_seed(0)).relu()
    made = block(instantiation, "spacetime", True, profile).eval()
    exact = by_definition(made).double()(x.double()) - x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert made(x).dtype == by_definition(made)(x).dtype
        added = made(x) - x
    assert ((added.double() - exact).abs().max() / exact.abs().max()).item() < tolerance


@pytest.mark.usefixtures("few_is_none")
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_sums_over_many_keys_stay_within_half_precision(instantiation: Any) -> None:
    """Where the definition is finite in float16, whose largest number is 65,504."""
    made = block(instantiation, "space", False, "release").eval()
    torch.nn.init.constant_(made.g.bias, 8.0)
    if instantiation != "gaussian":
        torch.nn.init.constant_(made.phi.bias, 8.0)
    x = torch.randn(1, 6, 1, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        expected = by_definition(made)(x)
        assert expected.isfinite().all()
        torch.testing.assert_close(made(x), expected, rtol=2e-2, atol=0.5, check_dtype=False)


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
    assert torch.equal(made(x), copy.deepcopy(made)(x))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["x", "theta", "phi", "g", "W_z"])
@pytest.mark.parametrize("forced", [False, True], ids=["small maps", "large maps"])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_what_is_not_a_number_stays_so(
    instantiation: Any, forced: bool, where: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad number in the input or in a weight: nothing is finite that isn't so by definition."""
    if forced:
        monkeypatch.setattr(fast, "form_of", lambda kind, *_: FORMS[kind])
    made = block(instantiation, "spacetime", True, "paper").eval()
    x = torch.randn(1, 6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    if where == "x":
        x[0, 1, 1, 2, 3] = value
    elif hasattr(made, where):
        getattr(made, where).weight.data[1, 1] = value
    with torch.no_grad():
        lost = ~by_definition(made)(x).isfinite()
        assert lost.any() or math.isinf(value) or not (where == "x" or hasattr(made, where))
        assert (~made(x).isfinite() | ~lost).all()


def test_exponents_beyond_every_number_are_not_lost() -> None:
    """Where all of a row are -inf torch's kernel gives 0."""
    theta, phi = 1e30 * torch.ones(1, 1, 3, 4), -1e30 * torch.ones(1, 1, 5, 4)
    assert attention(theta, phi, torch.randn(1, 1, 5, 4), 1.0).isnan().all()


@pytest.mark.parametrize(
    ("instantiation", "theta", "phi", "cpu", "cuda"),
    [
        # One clip of 32 frames of 224 x 224: res2, res3 and res4, subsampled, then all keys.
        ("embedded_gaussian", (1, 1, 25088, 128), (1, 1, 6272, 128), "attention", "attention"),
        ("embedded_gaussian", (1, 1, 784, 512), (1, 1, 196, 512), "pairs", "attention"),
        ("gaussian", (1, 1, 25088, 256), (1, 1, 6272, 256), "attention", "attention"),
        ("gaussian", (1, 1, 3136, 512), (1, 1, 784, 512), "pairs", "attention"),
        ("dot_product", (1, 1, 25088, 128), (1, 1, 6272, 128), "associated", "associated"),
        ("dot_product", (1, 1, 3136, 256), (1, 1, 784, 256), "associated", "associated"),
        ("dot_product", (1, 1, 784, 512), (1, 1, 196, 512), "pairs", "pairs"),
        ("concatenation", (1, 1, 3136, 256), (1, 1, 784, 256), "sorted", "sorted"),
        ("concatenation", (1, 1, 784, 512), (1, 1, 196, 512), "pairs", "pairs"),
        ("embedded_gaussian", (1, 1, 784, 512), (1, 1, 784, 512), "pairs", "attention"),
        ("dot_product", (1, 1, 784, 512), (1, 1, 784, 512), "associated", "associated"),
        ("dot_product", (1, 784, 4, 512), (1, 784, 4, 512), "pairs", "pairs"),  # time only
    ],
)
def test_form(instantiation: Any, theta: Any, phi: Any, cpu: str, cuda: str) -> None:
    assert form_of(instantiation, theta, phi, "cpu") == cpu
    assert form_of(instantiation, theta, phi, "cuda") == cuda
    assert form_of(instantiation, theta, phi, "cuda", half=True) == cuda


def test_form_in_half_precision() -> None:
    """On a CPU the pairs of res3 are made, and those of res2 or of long clips are not."""

    def form(instantiation: Any, queries: int, keys: int, channels: int, half: bool) -> str:
        return form_of(instantiation, (1, 1, queries, channels), (1, 1, keys, channels), "cpu", half)

    assert form("embedded_gaussian", 3136, 784, 256, half=False) == "attention"
    assert form("embedded_gaussian", 3136, 3136, 256, half=True) == "pairs"
    assert form("embedded_gaussian", 12544, 3136, 256, half=True) == "attention"
    assert form("gaussian", 25088, 6272, 256, half=True) == "attention"


# ------------------------------------------------------------------------------------------------- the sorted sum


def sorted_relu(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """The mean over j of ReLU(a_i + b_j) v_j by `sorted_average`: theta and phi have one channel, and w_f is 1."""
    return sorted_average(a[..., None], b[..., None], v, torch.ones(2, dtype=a.dtype))


def definition(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return torch.relu(a[..., :, None] + b[..., None, :]) @ v / v.shape[-2]


def with_gradients(f: object, *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    y = f(*inputs)  # type: ignore[operator]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)


@settings(max_examples=40)
@given(
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    values=st.integers(1, 4),
    sets=st.sampled_from([(), (1,), (2, 3)]),
    levels=st.sampled_from([1, 3, 1000]),  # few levels: ties of a with b and with -b, and empty sums
    seed=st.integers(0, 99),
)
def test_is_the_sum_over_all_pairs(
    queries: int, keys: int, values: int, sets: tuple[int, ...], levels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-levels, levels + 1, (*sets, queries), generator=generator).double()
    b = torch.randint(-levels, levels + 1, (*sets, keys), generator=generator).double()
    v = torch.randn(*sets, keys, values, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(with_gradients(sorted_relu, a, b, v), with_gradients(definition, a, b, v))


def test_gradcheck() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 7), (2, 5), (2, 5, 3)]]
    assert torch.autograd.gradcheck(SortedReLU.apply, inputs)


def test_a_second_derivative_is_refused() -> None:
    a, b, v = (torch.randn(*shape, requires_grad=True) for shape in [(3,), (4,), (4, 2)])
    (first,) = torch.autograd.grad((sorted_relu(a, b, v) ** 2).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("far", [0.0, 1e4], ids=["near", "far"])
def test_is_as_exact_as_the_definition_in_single_precision(far: float) -> None:
    """Parts of a and b that cancel don't cost digits: the sums are of b around its mean."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 500, generator=generator).round(decimals=2) + shift for shift in (far, -far))
    v = torch.randn(1, 500, 8, generator=generator)
    exact = definition(a.double(), b.double(), v.double())
    for form in (sorted_relu, definition):
        error = (form(a, b, v) - exact).abs().max() / exact.abs().max()
        assert error < 1e-5, form


def test_sums_are_single_precision_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 300, generator=generator) for _ in range(2))
    v = torch.randn(1, 300, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sorted_relu(a, b, v)
    assert torch.equal(inside, sorted_relu(a, b, v))
    half = sorted_relu(a.bfloat16(), b.bfloat16(), v.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), inside, rtol=2e-2, atol=2e-2)
