"""Muon for the kernels of a network, and AdamW for all else, as one optimiser.

Muon (Jordan et al., 2024; ``torch.optim.Muon``) moves a matrix along the momentum of its gradient with all singular
values brought near 1. So every direction of a kernel moves equally far, also those whose gradient is still small.
Torch's own takes 2-D parameters only, one after the other and in bfloat16. Here a kernel is the matrix
(outputs, inputs x positions), and all matrices of one shape are handled together, in the precision of the weights.
Checked in the tests against torch's, and against singular value decompositions.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of a polynomial of fifth degree that brings singular values near 1 in few steps (Jordan et al.)."""


class MuonAdamW(torch.optim.AdamW):
    """Muon for parameters of three dimensions or more, AdamW for the others (BN, biases, `w_f`, linear layers).

    Args:
        params: parameters, or groups of them.
        lr: of Muon.
        momentum: of Muon (Nesterov's).
        steps: Newton-Schulz steps of Muon, which has no weight decay.
        adamw_lr: learning rate of AdamW.
        betas, eps, weight_decay: of AdamW.
        fused: AdamW in one kernel.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        steps: int = 5,
        adamw_lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
        fused: bool = True,
    ) -> None:
        if not lr >= 0 or not 0 <= momentum < 1 or steps < 1:
            raise ValueError(
                f"lr {lr}, momentum {momentum}, steps {steps}: expected 0 or more, 0 up to 1, and 1 or more"
            )
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        by_muon = {"muon": True, "lr": lr, "momentum": momentum, "steps": steps, "weight_decay": 0.0}
        split = [
            {**group, "params": chosen, **settings}
            for group in groups
            for kernels, settings in ((True, by_muon), (False, {"muon": False}))
            if (chosen := [p for p in group["params"] if (p.ndim > 2) == kernels])
        ]
        super().__init__(split, lr=adamw_lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)
        self._step_supports_amp_scaling = False  # Muon needs gradients without the scale of mixed precision

    def __setstate__(self, state: dict[str, Any]) -> None:
        groups = state["param_groups"]
        super().__setstate__({**state, "param_groups": [group for group in groups if not group["muon"]]})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # before groups are set aside: it sets all gradients to 0
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["muon"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_muon(group)
        return loss

    def _step_muon(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        if params:
            means = [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(means, [p.grad for p in params], 1 - group["momentum"])
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in params:
            by_shape[p.flatten(1).shape].append(p)
        for (rows, columns), alike in by_shape.items():
            means_alike = torch.stack([self.state[p]["momentum"].flatten(1) for p in alike])  # (P, rows, columns)
            gradients = torch.stack([p.grad.flatten(1) for p in alike if p.grad is not None])
            moves = orthogonal(gradients.lerp_(means_alike, group["momentum"]), group["steps"])
            moves *= -group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, move in zip(alike, moves, strict=True):
                p.add_(move.view(p.shape))


def orthogonal(x: Float[Tensor, "P m n"], steps: int = 5) -> Float[Tensor, "P m n"]:
    """Matrices with the same singular vectors and singular values of about 0.7 to 1.2, by Newton-Schulz steps."""
    a, b, c = QUINTIC
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT, steps).mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
