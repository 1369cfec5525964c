"""Small problems, the paper's reference problems, and the model spelled out with dense matrices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from model.helpers import patch_matrix, random_model, random_tensor
from numpy.typing import NDArray
from torch import Tensor

from mrisps.model import GroupSoftThreshold, ModelConfig, Prior, SmoothPlusSparse, SmoothShrinkage, to_real_images
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, LinearOperator, fft2c

NCPR = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=12, regulariser="NCPR", exponent=1.8)
CPR = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=12, regulariser="CPR", group_size=2)
TINY_NCPR = ModelConfig(patch_size=3, n_free_atoms=3, n_synthesis_atoms=4, regulariser="NCPR", exponent=1.8)
TINY_CPR = ModelConfig(patch_size=3, n_free_atoms=3, n_synthesis_atoms=4, regulariser="CPR", group_size=2)


def scene(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, 1, y, x): a smooth ramp with a bright box and a disc, at most about 1; with a smooth phase if complex."""
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)[None]
    image = 0.4 + 0.2 * torch.cos(2 * x) * torch.cos(y)
    image = image + 0.3 * ((x.abs() < 0.4) & (y.abs() < 0.5)) - 0.2 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.1)
    if dtype.is_complex:
        image = torch.polar(image, 0.8 * x + 0.5 * y * y)
    return image.to(dtype)[None, None]


def columns(n_x: int, seed: int = 0) -> Tensor:
    """About half of the columns, the middle ones among them."""
    mask = torch.rand(n_x, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask[n_x // 2 - 1 : n_x // 2 + 2] = True
    return mask


def make_operator(kind: str, shape: tuple[int, int], double: bool = True) -> LinearOperator:
    """``denoising``, ``real`` or ``complex`` k-space, ``blur`` (whose normal operator is no convolution)."""
    real, complex_ = (torch.float64, torch.complex128) if double else (torch.float32, torch.complex64)
    if kind == "denoising":
        return Identity(shape, real)
    if kind == "blur":
        small = min(shape) < 10  # as many measurements as there can be
        return BlurDownsample(shape, kernel_size=2 if small else 4, sigma=1.0, stride=1 if small else 2, dtype=real)
    return FourierSubsampling(columns(shape[1]), shape, real if kind == "real" else complex_)


def measure(operator: LinearOperator, noise: float = 0.03, seed: int = 0) -> Tensor:
    """Noisy measurements of the scene; the images of further sets are shifted and fainter."""
    n_sets, *shape = operator.domain_shape
    first = scene(*shape, operator.domain_dtype)
    image = torch.cat([first.roll(3 * number, -1) / (number + 1) for number in range(n_sets)], dim=1)
    y = operator.forward(image)
    disturbance = operator.forward(operator.adjoint(random_tensor(*y.shape, dtype=y.dtype, seed=seed)))
    return y + noise * disturbance


KINDS = ("denoising", "real", "complex", "blur")


class Opaque(LinearOperator):
    """The same operator, without what it says of itself."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            domain_shape=operator.domain_shape,
            range_shape=operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            device=operator.device,
        )
        self._operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self._operator.forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._operator.adjoint(y)


class Weighted(LinearOperator):
    """A x = w x with very different weights: badly conditioned, and no convolution."""

    def __init__(self, weights: Tensor) -> None:
        shape = (1, *weights.shape)
        super().__init__(domain_shape=shape, range_shape=shape, domain_dtype=weights.dtype, range_dtype=weights.dtype)
        self._weights = weights

    def _forward(self, x: Tensor) -> Tensor:
        return self._weights * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._weights * y


# ------------------------------------------------------------------------------------------- the model as dense matrices


def real_vector(image: Tensor) -> NDArray[np.float64]:
    """(1, 1, y, x) -> real numbers: the real part, then the imaginary part."""
    return to_real_images(image).flatten().numpy()


@dataclass(frozen=True)
class Dense:
    """min over x and a of 1/2 |A x - y|^2 + s^2 (beta/2 |H x - S^T a|^2 + R(a)), everything real and written out.

    H stacks Phat_k for the pixels of a grid with stride s, for all sets and for the real and the imaginary part; S^T is the
    dictionary at all of them.
    """

    forward: NDArray[np.float64]
    y: NDArray[np.float64]
    analysis: NDArray[np.float64]
    synthesis: NDArray[np.float64]
    prior: Prior
    shape: tuple[int, int, int]  # rows (one for each set, two for a complex image), y / s, x / s

    @classmethod
    def of(cls, operator: LinearOperator, y: Tensor, prior: Prior) -> "Dense":
        n_sets, height, width = operator.domain_shape
        n_pixels, stride = height * width, prior.stride
        basis = torch.eye(n_sets * n_pixels, dtype=operator.domain_dtype).reshape(
            n_sets, n_pixels, n_sets, height, width
        )
        if operator.domain_dtype.is_complex:
            basis = torch.cat([basis, 1j * basis], dim=1)
        basis = basis.flatten(0, 1)
        forward = torch.stack([_parts(operator.forward(e[None])) for e in basis], dim=1).numpy()
        p2 = prior.free_atoms.shape[1]
        projector = torch.eye(p2, dtype=torch.float64) - prior.free_atoms.T @ prior.free_atoms - 1 / p2
        patches = patch_matrix((height, width), round(p2**0.5)).reshape(height, width, p2, n_pixels)
        patches = patches[::stride, ::stride].reshape(-1, p2, n_pixels)
        analysis = torch.einsum("qp,kpi->kqi", projector, patches).reshape(-1, n_pixels).numpy()
        synthesis = np.kron(np.eye(len(patches)), prior.synthesis_atoms.T.numpy())  # a -> (D a_k)_k
        rows = n_sets * (2 if operator.domain_dtype.is_complex else 1)
        return cls(
            forward,
            _parts(y).numpy(),
            np.kron(np.eye(rows), analysis),
            np.kron(np.eye(rows), synthesis),
            prior,
            (rows, height // stride, width // stride),
        )

    @property
    def system(self) -> NDArray[np.float64]:
        """A^T A + s^2 beta H^T H."""
        return self.forward.T @ self.forward + self.weight * self.analysis.T @ self.analysis

    @property
    def weight(self) -> float:
        """s^2 beta."""
        return self.prior.stride**2 * self.prior.beta

    def image(self, a: NDArray[np.float64]) -> NDArray[np.float64]:
        """x(a) of minimum norm."""
        right = self.forward.T @ self.y + self.weight * self.analysis.T @ (self.synthesis @ a)
        return np.linalg.lstsq(self.system, right, rcond=1e-12)[0]

    def gradient(self, x: NDArray[np.float64], a: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the coupling, in a."""
        return -self.prior.beta * self.synthesis.T @ (self.analysis @ x - self.synthesis @ a)

    def minimiser(self) -> NDArray[np.float64]:
        """a* of a convex problem: proximal gradient, the image eliminated, until nothing moves any more."""
        mixed = self.analysis.T @ self.synthesis
        pseudo = np.linalg.pinv(self.system, rcond=1e-12)
        hessian = self.prior.beta * (self.synthesis.T @ self.synthesis - self.weight * mixed.T @ pseudo @ mixed)
        offset = self.prior.beta * mixed.T @ pseudo @ (self.forward.T @ self.y)
        a = np.zeros(len(hessian))
        for _ in range(200_000):
            a_before, a = a, self.prox(a - (hessian @ a - offset))
            if np.linalg.norm(a - a_before) <= 1e-12 * np.linalg.norm(a):
                return a
        raise AssertionError("the independent solution did not converge")

    def prox(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """T, element by element or group by group."""
        regulariser = self.prior.regulariser
        lam = regulariser.thresholds.numpy()
        rows, height, width = self.shape
        v = v.reshape(rows, height, width, -1)
        if isinstance(regulariser, SmoothShrinkage):
            power = np.abs(v) ** regulariser.exponent
            return (v * power / (lam**regulariser.exponent + power)).flatten()
        assert isinstance(regulariser, GroupSoftThreshold)
        size = regulariser.size
        groups = v.reshape(rows, height // size, size, width // size, size, -1)
        norms = np.sqrt((groups**2).sum(axis=(2, 4), keepdims=True))
        keep = np.maximum(1 - lam / np.maximum(norms, 1e-300), 0)
        return (groups * keep).flatten()


def _parts(z: Tensor) -> Tensor:
    """Real numbers: the real part, then the imaginary part."""
    return torch.cat([z.real.flatten(), z.imag.flatten()]) if z.is_complex() else z.flatten()


# ------------------------------------------------------------------------------------------- the paper's references


@dataclass(frozen=True)
class Reference:
    """What the authors' code gives on one image, and the same problems in our conventions."""

    vectors: dict[str, NDArray[np.float32]]
    image: Tensor
    model: SmoothPlusSparse  # as trained: denoising
    mri_model: SmoothPlusSparse  # with beta and lambda tuned for MRI
    mri_operator: FourierSubsampling
    mri_y: Tensor
    denoising_operator: Identity
    noisy: Tensor

    def mri_image(self, tolerance: str) -> Tensor:
        return torch.from_numpy(self.vectors[f"mri_image_tol{tolerance}"])[None, None]

    def psnr(self, image: Tensor) -> float:
        return float(-10 * torch.log10((image - self.image).square().mean()))


def load_reference(shared_data: Path, name: str) -> Reference:
    """Their k-space has its zero frequency in the corner, ours in the centre; the image is the same."""
    model = SmoothPlusSparse.load(shared_data / "paper_checkpoints" / f"{name}.pth")
    with np.load(shared_data / "paper_reference" / f"{name}.npz") as file:
        vectors = dict(file)
    mask = torch.fft.fftshift(torch.from_numpy(vectors["mri_mask"]) > 0)
    zero_filled = torch.fft.ifft2(torch.from_numpy(vectors["mri_kspace"]), norm="ortho")
    shape = (48, 48)
    return Reference(
        vectors,
        torch.from_numpy(vectors["image"]),
        model,
        model.with_regularisation(beta=float(vectors["mri_beta"]), lam=float(vectors["mri_lambda"])),
        FourierSubsampling(mask, shape, torch.float32),
        fft2c(zero_filled[None, None]) * mask,
        Identity(shape, torch.float32),
        torch.from_numpy(vectors["denoise_noisy"])[None, None],
    )


def small_problem(
    kind: str, config: ModelConfig, shape: tuple[int, int] = (12, 16), *, beta: float = 0.5, lam: float | None = None
) -> tuple[LinearOperator, Tensor, SmoothPlusSparse]:
    """Operator, measurements, model; double precision. The thresholds leave some coefficients, but not all."""
    operator = make_operator(kind, shape)
    lam = {"blur": 0.004}.get(kind, 0.02) if lam is None else lam
    return operator, measure(operator), random_model(config, beta=beta, lam=lam)
