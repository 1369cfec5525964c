"""How the constraints on the dictionaries are met: raw parameters in, admissible atoms out.

    Q   free atoms       m x p^2, rows orthonormal and zero-mean
    D   synthesis atoms  n x p^2, rows zero-mean and orthogonal to Q, beta |D|_2^2 = 0.99
    B   patch basis      r x p^2, rows orthonormal, spanning what Q and the constant leave: r = p^2 - 1 - m

(The paper writes Q and D with the atoms as columns.) With these, ``Phat_k = B^T B P_k`` and ``D = C^T B`` with the small
factor ``C = B D^T`` (r x n).
"""

import torch
from torch import Tensor

__all__ = ["COUPLING_LIPSCHITZ", "constrain_free_atoms", "constrain_synthesis_atoms", "patch_basis"]

COUPLING_LIPSCHITZ = 0.99
"""beta |D|_2^2: below 1, so that a gradient step of length 1 in the coefficients is safe."""


def constrain_free_atoms(raw: Tensor, n_iterations: int = 15) -> Tensor:
    """Bjorck orthonormalisation: the nearest orthonormal zero-mean rows, reached by polynomial iterations.

    ``H <- 1.5 H - 0.5 H H^T H``, started from the centred rows divided by their spectral norm. Differentiable.

    Parameters
    ----------
    raw
        (m, p^2) with 0 <= m <= p^2 - 1.
    n_iterations
        Number of iterations; 15 in the paper's experiments. Each multiplies a small singular value by 1.5, so what starts
        below about 0.01 of the largest one is not orthonormal after 15.

    Returns
    -------
    Tensor
        (m, p^2).

    Source
    ------
    Bjorck and Bowie, SIAM J. Numer. Anal. 8 (1971) 358-364; arXiv 2412.13070, training section.
    """
    rows: Tensor = raw - raw.mean(dim=1, keepdim=True)
    if len(rows) == 0:
        return rows  # the norm of nothing is not defined
    rows = rows / torch.linalg.matrix_norm(rows, 2)
    for _ in range(n_iterations):
        rows = 1.5 * rows - 0.5 * (rows @ rows.T) @ rows
    return rows


def constrain_synthesis_atoms(raw: Tensor, free_atoms: Tensor, beta: Tensor, beta_floor: float = 0.0) -> Tensor:
    """Project the raw atoms on what the free atoms and the constant leave, normalise each, and scale them all together.

    Parameters
    ----------
    raw
        (n, p^2).
    free_atoms
        (m, p^2), orthonormal zero-mean rows.
    beta
        Coupling weight, a scalar > 0.
    beta_floor
        The scale uses ``max(beta, beta_floor)``; the authors' training has 0.1, their reconstruction 0.

    Returns
    -------
    Tensor
        (n, p^2) with ``beta * |D|_2^2 = 0.99``, |.|_2 the spectral norm of the matrix.

    Raises
    ------
    ValueError
        If nothing is left of an atom beside its mean and its part in the free atoms.
    """
    atoms = raw - raw.mean(dim=1, keepdim=True)
    atoms = atoms - (atoms @ free_atoms.T) @ free_atoms
    lengths = torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    rounding = 100 * torch.finfo(raw.dtype).eps * torch.linalg.vector_norm(raw, dim=1, keepdim=True)
    if not bool((lengths > rounding).all()):
        raise ValueError("raw_synthesis_atoms: at least one atom is nothing but its mean and a part in the free atoms")
    atoms = atoms / lengths
    scale = torch.sqrt(COUPLING_LIPSCHITZ / beta.clamp(min=beta_floor))
    scaled: Tensor = scale * atoms / torch.linalg.matrix_norm(atoms, 2)
    return scaled


def patch_basis(free_atoms: Tensor) -> Tensor:
    """An orthonormal basis of the patches that are orthogonal to the free atoms and to the constant.

    Parameters
    ----------
    free_atoms
        (m, p^2), orthonormal zero-mean rows.

    Returns
    -------
    Tensor
        (p^2 - 1 - m, p^2) orthonormal rows. Any rotation of them serves equally well: the model does not see which basis it
        is, so no gradient is meant to pass through this function.
    """
    n_free, n_pixels = free_atoms.shape
    constant = free_atoms.new_full((1, n_pixels), n_pixels**-0.5)
    taken = torch.cat([constant, free_atoms])
    basis: Tensor = torch.linalg.svd(taken.double(), full_matrices=True).Vh[n_free + 1 :]
    return basis.to(free_atoms.dtype)
