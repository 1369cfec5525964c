"""The model as an object: raw parameters, how they become an admissible prior, and how they are stored."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mrisps.errors import FileError
from mrisps.model.atoms import constrain_free_atoms, constrain_synthesis_atoms, patch_basis
from mrisps.model.attention import Attention
from mrisps.model.checkpoint import ATTENTION, StoredWeights, read_weights, write_weights
from mrisps.model.config import ModelConfig
from mrisps.model.energy import Prior
from mrisps.model.shipped import shipped_weights
from mrisps.model.shrinkage import GroupSoftThreshold, Regulariser, SmoothShrinkage

__all__ = ["ConstrainedParameters", "SmoothPlusSparse"]


@dataclass(frozen=True, eq=False)
class ConstrainedParameters:
    """What the energy depends on, float64: Q (m, p^2), D (n, p^2), beta () and lam_i (n,)."""

    free_atoms: Tensor
    synthesis_atoms: Tensor
    beta: Tensor
    thresholds: Tensor


class SmoothPlusSparse(nn.Module):
    """The patch-based smooth-plus-sparse model of arXiv 2412.13070.

    Each p x p patch is a smooth part, left free, plus a part that is sparse in a learned dictionary. The learned numbers are
    the raw atoms, the log-thresholds and beta; :meth:`prior` turns them into an admissible prior.

    Parameters
    ----------
    config
        Sizes and regulariser.
    raw_free_atoms
        (m, p, p) any real numbers; the constraints are met by :meth:`prior`.
    raw_synthesis_atoms
        (n, p, p) likewise.
    log_thresholds
        (n,): the threshold of atom i is ``lam * exp(log_thresholds[i])``.
    beta
        Coupling weight > 0.
    lam
        Overall threshold > 0, in units where the image maximum is about 1.
    attention
        Gives the thresholds of a second reconstruction; None: there is no second one.

    Raises
    ------
    ValueError
        If a tensor does not have the shape that the configuration says, is not float32 or float64, or is not finite.
    """

    def __init__(
        self,
        config: ModelConfig,
        raw_free_atoms: Tensor,
        raw_synthesis_atoms: Tensor,
        log_thresholds: Tensor,
        beta: float | Tensor,
        lam: float,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        p = config.patch_size
        beta = beta if isinstance(beta, Tensor) else torch.tensor(float(beta), dtype=raw_free_atoms.dtype)
        for name, tensor, shape in (
            ("raw_free_atoms", raw_free_atoms, (config.n_free_atoms, p, p)),
            ("raw_synthesis_atoms", raw_synthesis_atoms, (config.n_synthesis_atoms, p, p)),
            ("log_thresholds", log_thresholds, (config.n_synthesis_atoms,)),
            ("beta", beta, ()),
        ):
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
            if tensor.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"{name}: expected torch.float32 or torch.float64, got {tensor.dtype}")
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name}: expected finite real numbers")
        if not float(beta.detach()) > 0:
            raise ValueError(f"beta: expected a number > 0, got {float(beta.detach())}")
        if not 0 < lam < float("inf"):
            raise ValueError(f"lam: expected a number > 0, got {lam}")
        if attention is not None:
            if attention.n_atoms != config.n_synthesis_atoms:
                n = config.n_synthesis_atoms
                raise ValueError(f"attention: expected one for {n} atoms, got one for {attention.n_atoms}")
            if config.regulariser != "NCPR":
                raise ValueError(f"attention: is for NCPR, not for {config.regulariser}")
        self.config = config
        self.lam = float(lam)
        self.raw_free_atoms = nn.Parameter(raw_free_atoms.detach().clone())
        self.raw_synthesis_atoms = nn.Parameter(raw_synthesis_atoms.detach().clone())
        self.log_thresholds = nn.Parameter(log_thresholds.detach().clone())
        self.beta = nn.Parameter(beta.detach().clone())
        self.attention = None if attention is None else Attention(**dict(attention.named_parameters()))

    def with_regularisation(self, *, beta: float | None = None, lam: float | None = None) -> "SmoothPlusSparse":
        """A copy with other regularisation weights; the dictionaries stay (D is scaled anew to the new beta)."""
        return SmoothPlusSparse(
            self.config,
            self.raw_free_atoms,
            self.raw_synthesis_atoms,
            self.log_thresholds,
            self.beta if beta is None else beta,
            self.lam if lam is None else lam,
            self.attention,
        )

    def with_attention(self, attention: Attention | None) -> "SmoothPlusSparse":
        """A copy with this attention, or without one."""
        return SmoothPlusSparse(
            self.config,
            self.raw_free_atoms,
            self.raw_synthesis_atoms,
            self.log_thresholds,
            self.beta,
            self.lam,
            attention,
        )

    def with_threshold_unit(self, lam: float) -> "SmoothPlusSparse":
        """The same model, its thresholds expressed in another unit: lam is this, the log-thresholds make up for it.

        A tuned lam carries over from one set of weights to another if both have the same ``lam / sqrt(beta)``: D is scaled by
        1 / sqrt(beta), and so are the coefficients.
        """
        other = self.with_regularisation(lam=lam)
        with torch.no_grad():
            other.log_thresholds.add_(math.log(self.lam / lam))
        return other

    def prior(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, beta_floor: float = 0.0
    ) -> Prior:
        """The prior with its constraints met, computed in float64 and then rounded to ``dtype``.

        Parameters
        ----------
        dtype
            torch.float32 or torch.float64.
        device
            Where the prior is to live; by default where the parameters are.
        beta_floor
            See :func:`mrisps.model.atoms.constrain_synthesis_atoms`; 0.1 is what the authors train with.

        Raises
        ------
        ValueError
            If the raw atoms do not lead to an admissible prior: free atoms that are (nearly) linearly dependent, or a synthesis
            atom with nothing left beside the free atoms.
        """
        with torch.no_grad():
            constrained = self.constrained(beta_floor)
        free, atoms, thresholds = constrained.free_atoms, constrained.synthesis_atoms, constrained.thresholds
        device = self.beta.device if device is None else torch.device(device)
        thresholds = thresholds.to(device, dtype)
        regulariser: Regulariser
        if self.config.regulariser == "NCPR":
            regulariser = SmoothShrinkage(thresholds, exponent=self.config.exponent)
        else:
            regulariser = GroupSoftThreshold(thresholds, size=self.config.group_size)
        return Prior(
            free_atoms=free.to(device, dtype),
            synthesis_atoms=atoms.to(device, dtype),
            basis=patch_basis(free).to(device, dtype),
            beta=float(constrained.beta.detach()),
            regulariser=regulariser,
        )

    def constrained(self, beta_floor: float = 0.0) -> "ConstrainedParameters":
        """Q, D, beta and the thresholds as differentiable functions of the raw parameters, in float64.

        Parameters
        ----------
        beta_floor
            See :func:`mrisps.model.atoms.constrain_synthesis_atoms`.

        Raises
        ------
        ValueError
            As :meth:`prior`.
        """
        free = constrain_free_atoms(self.raw_free_atoms.flatten(1).double(), self.config.bjorck_iterations)
        overlap = (free @ free.T - torch.eye(len(free), dtype=free.dtype, device=free.device)).detach()
        defect = float(overlap.abs().max()) if len(free) else 0.0
        if not defect < 1e-5:
            raise ValueError(
                f"raw_free_atoms: expected orthonormal atoms after {self.config.bjorck_iterations} Bjorck iterations, "
                f"they are off by {defect:.1e} (nearly dependent atoms; more bjorck_iterations may help)"
            )
        beta = self.beta.double()
        atoms = constrain_synthesis_atoms(
            self.raw_synthesis_atoms.flatten(1).double(), free, beta, beta_floor=beta_floor
        )
        return ConstrainedParameters(free, atoms, beta, self.lam * self.log_thresholds.double().exp())

    def fingerprint(self) -> str:
        """SHA-256 of the configuration, lam and every parameter: names the weights that made a result."""
        digest = hashlib.sha256(json.dumps({**asdict(self.config), "lam": self.lam}, sort_keys=True).encode())
        for name, parameter in sorted(self.named_parameters()):
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def load(cls, path: str | Path) -> "SmoothPlusSparse":
        """Read weights: by the name of some that come with the package, our ``.safetensors``, or the authors' ``.pth``.

        Nothing in a file is executed. The names are those of :func:`mrisps.model.shipped.shipped_weights`.

        Raises
        ------
        mrisps.errors.FileError
            If the file is missing, is neither, or holds anything but a complete, finite model.
        """
        shipped = shipped_weights()
        file = shipped.get(str(path), Path(path))
        if not file.exists():
            raise FileError(file, f"no such file; the weights that come with the package are {', '.join(shipped)}")
        weights = read_weights(file)
        try:
            tensors = dict(weights.tensors)
            parts = [tensors.pop(name) for name in ATTENTION if name in tensors]
            attention = Attention(*parts) if parts else None
            return cls(weights.config, lam=weights.lam, attention=attention, **tensors)
        except ValueError as error:
            raise FileError(file, str(error)) from error

    def save(self, path: str | Path, source: str = "") -> None:
        """Write ``.safetensors`` with the configuration inside, and a text that says where the weights come from.

        The file appears whole or not at all.
        """
        weights = StoredWeights(self.config, self.lam, dict(self.named_parameters()))
        write_weights(Path(path), weights, source)

    def extra_repr(self) -> str:
        """One line for ``print(model)``."""
        return f"{self.config}, beta={float(self.beta.detach()):.6g}, lam={self.lam:.6g}"
