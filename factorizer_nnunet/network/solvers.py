"""One update of one NMF factor: given X ≈ U Vᵀ, a better U for fixed V.

X: (..., M, N), U: (..., M, R), V: (..., N, R). V is updated by the same rules on Xᵀ. ε, which the caller chooses to
suit the scale of X, keeps quotients defined where a factor or the entire matrix vanishes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Update = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def noise_level(dtype: torch.dtype) -> float:
    """The relative size below which a difference of two sums may be only rounding error."""
    return 64 * torch.finfo(dtype).eps


def hals(x: Tensor, u: Tensor, v: Tensor, eps: float) -> Tensor:
    """Nonnegative coordinate descent, column after column (Cichocki and Phan, 2009, "fast local algorithms")."""
    noise = noise_level(x.dtype)
    a, b = x @ v, v.mT @ v
    columns = list(u.unbind(-1))
    for r in range(len(columns)):
        others = sum(
            (columns[j] * b[..., j, r, None] for j in range(len(columns)) if j != r), torch.zeros_like(a[..., r])
        )
        numerator = a[..., r] - others + eps
        column = numerator / (b[..., r, r, None] + eps)
        # Where the other columns already explain X, the remainder is 0 or rounding noise of either sign. If noise were
        # used as a column, it would determine the following updates, and its gradients would be huge.
        columns[r] = torch.where(numerator >= noise * a[..., r].abs(), column, 0)
    return torch.stack(columns, -1)


def multiplicative(x: Tensor, u: Tensor, v: Tensor, eps: float) -> Tensor:
    """Multiplicative update (Lee and Seung, 2001, theorem 1)."""
    return (u * (x @ v) + eps) / (u @ (v.mT @ v) + eps)


def projected_gradient(x: Tensor, u: Tensor, v: Tensor, eps: float) -> Tensor:
    """A step along the negative gradient with the best length for the unconstrained problem, then projected."""
    b = v.mT @ v
    gradient = x @ v - u @ b
    # The curvature is the same along any multiple of the gradient; one of order 1 has squares that cannot overflow.
    limits = torch.finfo(x.dtype)
    direction = gradient / gradient.detach().abs().amax((-2, -1), keepdim=True).clamp_min(limits.tiny)
    # Where the gradient vanishes, the ε terms leave the trace of VᵀV, an upper bound of the curvature: no overshoot.
    trace = b.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    curvature = (direction * (direction @ b)).sum((-2, -1), keepdim=True) + eps * trace
    curvature = curvature / (direction.square().sum((-2, -1), keepdim=True) + eps)
    return torch.relu(u + gradient / curvature.clamp_min(eps))


def projected_least_squares(x: Tensor, u: Tensor, v: Tensor, eps: float) -> Tensor:
    """The unconstrained minimizer, projected onto the nonnegative matrices (Berry et al., 2007)."""
    return torch.relu(least_squares(x, u, v, eps))


def least_squares(x: Tensor, u: Tensor, v: Tensor, eps: float) -> Tensor:
    """The unconstrained minimizer X V (VᵀV + δ)⁻¹; δ is relative to VᵀV, for factors that coincide or vanish."""
    b = v.mT @ v
    identity = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    # Several times the rounding error, as VᵀV of equal columns could otherwise be singular.
    ridge = 8 * torch.finfo(b.dtype).eps * b.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return torch.linalg.solve(b + (ridge + torch.finfo(b.dtype).tiny) * identity, (x @ v).mT).mT


# name: (update of U, update of V)
SOLVERS: dict[str, tuple[Update, Update]] = {
    "hals": (hals, hals),
    "mu": (multiplicative, multiplicative),
    "projected_gradient": (projected_gradient, projected_gradient),
    "least_squares": (projected_least_squares, projected_least_squares),
    "semi": (least_squares, hals),  # X ≈ U Vᵀ with V nonnegative and U of any sign (Ding et al., 2010)
}
