"""The dictionaries of a model as a picture."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.model import SmoothPlusSparse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["atoms_figure", "sorted_atoms", "sorted_free_atoms"]

_GAP = 1


def sorted_atoms(model: SmoothPlusSparse) -> NDArray[np.float64]:
    """The synthesis atoms D, (n, p, p), by rising threshold: the cheapest first."""
    prior = model.prior()
    side = model.config.patch_size
    order = prior.regulariser.thresholds.argsort(stable=True)
    return prior.synthesis_atoms[order].reshape(-1, side, side).double().cpu().numpy()


def sorted_free_atoms(model: SmoothPlusSparse) -> NDArray[np.float64]:
    """The free atoms Q as their principal components on natural images, (m, p, p), largest variance first.

    The model sees the span of the free atoms alone; any rotation of them serves equally well. This one diagonalises the covariance
    of patches of an image whose power spectrum falls as 1 / |f|^2, as those of natural and MR images nearly do.
    """
    free = model.prior().free_atoms.double().cpu().numpy()
    side = model.config.patch_size
    variances, axes = np.linalg.eigh(free @ _natural_covariance(side) @ free.T)
    components: NDArray[np.float64] = (axes[:, np.argsort(-variances, kind="stable")].T @ free).reshape(-1, side, side)
    return components


def atoms_figure(model: SmoothPlusSparse) -> "Figure":
    """Free atoms and synthesis atoms side by side, each atom on a scale of its own (grey is 0)."""
    from matplotlib.figure import Figure

    config = model.config
    figure = Figure(figsize=(11, 6.4), dpi=130, layout="constrained")
    panels = (
        (f"{config.n_free_atoms} free atoms (principal components)", sorted_free_atoms(model)),
        (f"{config.n_synthesis_atoms} synthesis atoms, by rising threshold", sorted_atoms(model)),
    )
    for axis, (title, atoms) in zip(figure.subplots(1, 2), panels, strict=True):
        axis.imshow(_mosaic(atoms), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    return figure


def _mosaic(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row in a rectangle that is about square, each atom divided by its largest magnitude; white between them."""
    n, side, _ = atoms.shape
    n_columns = int(np.ceil(np.sqrt(n)))
    n_rows = -(-n // n_columns)
    step = side + _GAP
    picture = np.ones((n_rows * step - _GAP, n_columns * step - _GAP))
    for k, atom in enumerate(atoms):
        y, x = (k // n_columns) * step, (k % n_columns) * step
        picture[y : y + side, x : x + side] = atom / max(float(np.abs(atom).max()), 1e-30)
    return picture


def _natural_covariance(side: int) -> NDArray[np.float64]:
    """(p^2, p^2): covariance of the pixels of a patch, for the power spectrum 1 / |f|^2 on a much larger periodic image."""
    size = 8 * side
    f = np.fft.fftfreq(size)
    power = f[:, None] ** 2 + f[None, :] ** 2
    power[0, 0] = np.inf
    correlation = np.fft.ifft2(1 / power).real
    y, x = (axis.ravel() for axis in np.mgrid[:side, :side])
    covariance: NDArray[np.float64] = correlation[(y[:, None] - y[None, :]) % size, (x[:, None] - x[None, :]) % size]
    return covariance
