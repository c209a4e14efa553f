"""The sorted sum of ReLU(a_i + b_j) v_j against the matrix of all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nl_lightning.models.sorted_relu import SortedReLU, sorted_relu


def definition(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return torch.relu(a[..., :, None] + b[..., None, :]) @ v / v.shape[-2]


def with_gradients(f: object, *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    y = f(*inputs)  # type: ignore[operator]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return y.detach(), *torch.autograd.grad((y * weights).sum(), inputs)


@settings(max_examples=40, deadline=None)
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
