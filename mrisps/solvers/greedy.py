"""First coefficients for a given image: orthogonal matching pursuit of every patch.

Proximal iterations that start from a = 0 spend dozens of passes on finding out which atoms a patch needs, and for the non-convex
prior they settle for worse ones. The pursuit takes the atom with the largest correlation in units of its threshold, projects it
out, and goes on while an atom is worth more than its threshold: most patches are done after a few atoms.

Y. C. Pati, R. Rezaiifar and P. S. Krishnaprasad, Asilomar Conf. Signals, Systems and Computers (1993) 40-44; here by
Gram-Schmidt, in the r numbers of a patch.
"""

import torch
from torch import Tensor

from mrisps.model import Prior

__all__ = ["greedy_coefficients"]

MAX_ATOMS = 24
"""Atoms a patch may have at the start; the iteration that follows adds what is missing."""

CHUNK_PATCHES = 4096
COMPACT_BELOW = 0.75
"""The patches still at work are moved together when fewer than this share of them are left."""

ACCELERATOR_CHUNK_PATCHES = 1 << 16
ACCELERATOR_ROUNDS = 6
"""On an accelerator, where each look at how many are left makes the host wait: larger chunks, and rounds between two looks."""

DEPENDENT = 1e-2
"""An atom with less than this share of its norm outside the span of those chosen adds nothing."""


def greedy_coefficients(
    prior: Prior,
    analysed: Tensor,
    out: Tensor,
    *,
    max_atoms: int = MAX_ATOMS,
    threshold: float = 1.0,
    wanted: Tensor | None = None,
) -> None:
    """Fill ``out`` with coefficients a_k such that C a_k is near c_k.

    Parameters
    ----------
    prior
        Atoms, beta and thresholds.
    analysed
        c = B P_k x, (rows, y, x, r).
    out
        (rows, y, x, n), overwritten; float32, float64 or float16.
    max_atoms
        Most atoms of a patch.
    threshold
        An atom is taken while beta |c_i^T r| exceeds this many of its thresholds, r being what is left of the patch.
    wanted
        (rows, y, x) bool: the patches to work on, by default all; what ``out`` has of the others is left as it is.
    """
    patches, flat = analysed.reshape(-1, analysed.shape[-1]), out.view(-1, out.shape[-1])
    weights = prior.beta / (threshold * prior.regulariser.mean_thresholds)
    atoms = prior.factors.T.contiguous()
    most = min(max_atoms, *prior.factors.shape)
    indices = None if wanted is None else wanted.flatten().nonzero()[:, 0]
    n_patches = len(patches) if indices is None else len(indices)
    size = min(CHUNK_PATCHES if patches.device.type == "cpu" else ACCELERATOR_CHUNK_PATCHES, n_patches)
    basis, triangle = patches.new_empty(size, most, len(prior.factors)), patches.new_empty(size, most, most)
    for first in range(0, n_patches, max(size, 1)):
        here: slice | Tensor = slice(first, first + size)
        if indices is not None:
            here = indices[here]
        flat[here] = _pursue(patches[here], prior.factors, atoms, weights, basis, triangle).to(out.dtype)


def _pursue(
    patches: Tensor, factors: Tensor, atoms: Tensor, weights: Tensor, basis: Tensor, triangle: Tensor
) -> Tensor:
    """(patches, r) -> (patches, n); ``basis`` (patches, atoms, r) and ``triangle`` (patches, atoms, atoms) are scratch."""
    n_patches, max_atoms = len(patches), basis.shape[1]
    chosen = torch.zeros(n_patches, max_atoms, dtype=torch.long, device=patches.device)
    # patch = sum_j projections_j q_j + rest with q orthonormal, and atom_j = sum_i triangle_ij q_i.
    projections = patches.new_zeros(n_patches, max_atoms)
    basis, triangle = basis[:n_patches], triangle[:n_patches]
    triangle.copy_(torch.eye(max_atoms, dtype=patches.dtype, device=patches.device))

    at_work = torch.arange(n_patches, device=patches.device)
    alive = torch.ones(n_patches, dtype=torch.bool, device=patches.device)
    rest = patches
    n_rounds = 0
    rounds = 1 if patches.device.type == "cpu" else ACCELERATOR_ROUNDS
    for k in range(max_atoms):
        gain, index = (rest @ factors).abs_().mul_(weights).max(dim=1)
        alive &= gain > 1
        if k % rounds == 0:
            left = alive.nonzero()[:, 0]
            if len(left) == 0:
                break
            if len(left) < COMPACT_BELOW * len(alive):
                at_work, rest, index = at_work[left], rest[left], index[left]
                kept = basis[left, :k]
                basis = basis[: len(left)]
                basis[:, :k] = kept
                alive = torch.ones(len(left), dtype=torch.bool, device=patches.device)
        n_rounds = k + 1
        atom = atoms[index]
        within = torch.bmm(basis[:, :k], atom[:, :, None])  # (patches, k, 1)
        outside = torch.baddbmm(atom[:, None], within.mT, basis[:, :k], alpha=-1)[:, 0]
        length = torch.linalg.vector_norm(outside, dim=1)
        alive &= length > DEPENDENT * torch.linalg.vector_norm(atom, dim=1)
        direction = torch.where(alive, length.clamp(min=torch.finfo(length.dtype).tiny).reciprocal(), 0.0)
        unit = outside * direction[:, None]
        projection = (unit * rest).sum(dim=1)
        rest = torch.addcmul(rest, unit, projection[:, None], value=-1)
        basis[:, k] = unit
        # A patch that is done keeps the 1 of the identity here and the projection 0: its coefficient is 0.
        chosen[at_work, k] = index
        projections[at_work, k] = projection
        triangle[at_work, :k, k] = torch.where(alive[:, None], within[..., 0], 0.0)
        triangle[at_work, k, k] = torch.where(alive, length, 1.0)

    solved = torch.zeros_like(projections)
    for j in range(n_rounds - 1, -1, -1):
        known = (triangle[:, j, j + 1 : n_rounds] * solved[:, j + 1 : n_rounds]).sum(dim=1)
        solved[:, j] = (projections[:, j] - known) / triangle[:, j, j]
    return patches.new_zeros(n_patches, factors.shape[1]).scatter_add_(1, chosen, solved)
