"""NMF of batches of matrices, plain and general: start, iterate, reconstruct.

``decompose`` supports every rank, solver and start; the fast implementations of rank 1 (``ops.mixer``) are tested
against it. The updates have an ε that keeps quotients defined. The authors' ε is absolute, so results depend on the
scale of X where their factors vanish; ours is relative and below rounding, for matrices of any scale. The authors'
networks are reproduced with their ε.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from factorizer_nnunet.network.solvers import SOLVERS, noise_level

STARTS = ("constant", "uniform", "nndsvd")
# Below this, a matrix is too small compared with a stored start's U₀, of order 1, for their quotient to be useful.
_SMALLEST_SCALE = 1e-8
_SMALLEST_EPS, _LARGEST_EPS = 1e-20, 1e-3  # float32 has no squares of smaller ones; larger ones would be visible


@dataclass(frozen=True, kw_only=True)
class NMFSettings:
    """How a matrix is factorized.

    Raises:
        ValueError: an invalid value, with its name.
    """

    rank: int = 1
    solver: str = "hals"  # a key of solvers.SOLVERS
    start: str = "constant"  # one of STARTS
    num_iters: int = 5  # updates of both factors
    num_grad_steps: int | None = None  # how many of the last updates gradients flow through; None: all
    eps: float | None = None  # absolute ε of the updates; None: relative to the matrix, and below rounding

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"invalid rank={self.rank}: expected an integer of at least 1")
        if self.solver not in SOLVERS:
            raise ValueError(f"invalid solver={self.solver}: expected one of {sorted(SOLVERS)}")
        if self.start not in STARTS:
            raise ValueError(f"invalid start={self.start}: expected one of {list(STARTS)}")
        if self.num_iters < 1:
            raise ValueError(f"invalid num_iters={self.num_iters}: expected an integer of at least 1")
        if self.num_grad_steps is not None and not 1 <= self.num_grad_steps <= self.num_iters:
            raise ValueError(
                f"invalid num_grad_steps={self.num_grad_steps}: expected 1 to num_iters={self.num_iters}, or null"
            )
        if self.eps is not None and not _SMALLEST_EPS <= self.eps <= _LARGEST_EPS:
            raise ValueError(f"invalid eps={self.eps}: expected {_SMALLEST_EPS} to {_LARGEST_EPS}, or null")

    @property
    def is_power_iteration(self) -> bool:
        """Whether V after any update is Xᵀu / uᵀu, so that iterations are powers of the Gram matrix XXᵀ.

        True for rank 1 with every solver but the multiplicative one: the old factor cancels and, X being nonnegative,
        no projection acts. The multiplicative update keeps the old factor where X vanishes: ε / ε, not 0.
        """
        return self.rank == 1 and self.solver != "mu"

    @property
    def supports_block_gram(self) -> bool:
        """Whether the NMF of windows that share blocks follows from Gram matrices of blocks (``ops.mixer.gram``)."""
        return self.start == "constant" and self.num_constant_steps == 0 and self.is_power_iteration

    @property
    def num_constant_steps(self) -> int:
        """Updates before those that gradients flow through."""
        return 0 if self.num_grad_steps is None else self.num_iters - self.num_grad_steps


class Start(nn.Module):
    """Starting factors U₀ (M, R) and V₀ (N, R) for matrices of M channels by N voxels."""

    u0: Tensor
    v0: Tensor

    def __init__(self, num_channels: int, num_voxels: int, rank: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.rank = rank
        if kind == "uniform":
            # Stored with the model; its own generator leaves the global random state unchanged.
            generator = torch.Generator().manual_seed(0)
            self.register_buffer("u0", torch.rand(num_channels, rank, generator=generator))
            self.register_buffer("v0", torch.rand(num_voxels, rank, generator=generator))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (..., M, N); returns U₀ (..., M, R) and V₀ (..., N, R), constants to autograd."""
        if self.kind == "uniform":
            u, v = self.u0.to(x.dtype), self.v0.to(x.dtype)
            return u.expand(*x.shape[:-2], *u.shape), v.expand(*x.shape[:-2], *v.shape)
        if self.kind == "nndsvd":
            return nndsvd(x.detach(), self.rank)
        return constant_start(x, self.rank)


def constant_start(x: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U₀ is the mean of X everywhere, so that results scale with X; V₀ is ones.

    With several columns, each is doubled in a different part, since equal columns would stay equal.
    """
    *batch, num_channels, num_voxels = x.shape
    u = x.detach().mean((-2, -1), keepdim=True).expand(*batch, num_channels, rank)
    v = x.new_ones(num_voxels, rank)
    if rank > 1:
        part = torch.arange(num_voxels, device=x.device) * rank // num_voxels
        v = v + (part[:, None] == torch.arange(rank, device=x.device)).to(x.dtype)
    return u, v.expand(*batch, -1, -1)


def nndsvd(x: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Nonnegative double SVD (Boutsidis and Gallopoulos, 2008): of each singular pair, the sign with the larger norm.

    U₀ carries the scale of X. Pairs beyond the rank of X and entries that are only rounding are set to zero: their
    signs are arbitrary, and to multiplicative updates a zero differs from the smallest positive number.
    """
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    values, leading = values[..., None, :rank], values[..., None, :1]
    values = _without_noise(values, leading)
    u = _without_noise(left[..., :rank]) * (values * leading).sqrt()
    v = _without_noise(right.mT[..., :rank]) * (values / leading.clamp_min(torch.finfo(x.dtype).tiny)).sqrt()
    positive = u.relu(), v.relu()
    negative = (-u).relu(), (-v).relu()
    mass = [
        part_u.norm(dim=-2, keepdim=True) * part_v.norm(dim=-2, keepdim=True) for part_u, part_v in (positive, negative)
    ]
    keep = mass[0] >= mass[1]
    return torch.where(keep, positive[0], negative[0]), torch.where(keep, positive[1], negative[1])


def _without_noise(x: Tensor, largest: Tensor | None = None) -> Tensor:
    """x with entries set to zero that are rounding compared with ``largest``, by default that of each column."""
    largest = x.abs().amax(-2, keepdim=True) if largest is None else largest
    return torch.where(x.abs() > noise_level(x.dtype) * largest, x, 0)


def full_precision(x: Tensor) -> Tensor:
    """x in float32 if it is in half precision: in float16 the sum of 512 squares overflows for activations of 11."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def decompose(x: Tensor, start: Start, settings: NMFSettings) -> tuple[Tensor, Tensor]:
    """U (..., M, R) and V (..., N, R) with X ≈ U Vᵀ after ``num_iters`` updates of U, then V.

    x: (..., M, N), nonnegative, of any scale; where x is 0, U is 0. With ``settings.eps`` ε is absolute, X should be of
    order 1, and where x is 0 the factors depend on ε alone. Gradients flow through the last ``num_grad_steps`` updates.
    """
    u, v = start(x)
    if settings.eps is not None:
        return _iterate(x, u, v, settings, settings.eps)
    # X and U₀ are divided by the largest entry of X and U is multiplied by it, which changes only the effect of ε.
    limits = torch.finfo(x.dtype)
    scale = x.detach().amax((-2, -1), keepdim=True)
    x, u = x / scale.clamp_min(limits.tiny), u / scale.clamp_min(_SMALLEST_SCALE)
    u, v = _iterate(x, u, v, settings, eps=limits.eps**2)
    return u * scale, v


def _iterate(x: Tensor, u: Tensor, v: Tensor, settings: NMFSettings, eps: float) -> tuple[Tensor, Tensor]:
    update_u, update_v = SOLVERS[settings.solver]
    for step in range(settings.num_iters):
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= settings.num_constant_steps):
            u = update_u(x, u, v, eps)
            v = update_v(x.mT, v, u, eps)
    return u, v
