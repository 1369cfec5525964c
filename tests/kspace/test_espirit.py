"""ESPIRiT against its definition, against SigPy's and against BART's."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.kspace.espirit import Espirit, espirit

SHAPE = (60, 52)
WIDTH = 24


def maps_and_centre(
    n_coils: int = 6, noise: float = 0.0
) -> tuple[NDArray[np.complex128], NDArray[np.complex128], Tensor]:
    """Smooth maps (coil, y, x) with sum |S|^2 = 1, the image, and the centre of the coils' k-space."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    body = (x**2 / 0.5 + y**2 / 0.6 < 1) * (1 + 0.5 * np.cos(9 * x) * np.cos(7 * y)) * np.exp(1j * x)
    angles = np.arange(n_coils) * 2 * np.pi / n_coils
    maps = np.stack([np.exp(-((x - np.cos(t)) ** 2 + (y - np.sin(t)) ** 2) + 2j * t) for t in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    shifted = np.fft.fft2(np.fft.ifftshift(maps * body, axes=(1, 2)), norm="ortho")
    kspace = np.fft.fftshift(shifted, axes=(1, 2))
    random = np.random.default_rng(0)
    kspace += noise * (random.normal(size=kspace.shape) + 1j * random.normal(size=kspace.shape))
    top, left = (n // 2 - WIDTH // 2 for n in SHAPE)
    centre = kspace[:, top : top + WIDTH, left : left + WIDTH]
    return maps, body, torch.from_numpy(centre.astype(np.complex64))


def agreement(first: NDArray[np.complex128], second: NDArray[np.complex128]) -> NDArray[np.float64]:
    """|<a, b>| of two fields of unit vectors (coil, y, x): 1 where they agree up to a phase."""
    return np.asarray(np.abs((first.conj() * second).sum(axis=0)), dtype=np.float64)


def numbers(found: Espirit) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    return found.vectors.numpy().astype(np.complex128), found.eigenvalues.numpy().astype(np.float64)


def test_the_first_set_is_the_maps() -> None:
    maps, body, centre = maps_and_centre()
    vectors, eigenvalues = numbers(espirit(centre, SHAPE, kernel=(6, 6)))
    inside = np.abs(body) > 0.3
    assert float(agreement(vectors[0], maps)[inside].min()) > 0.99
    assert float(eigenvalues[0][inside].min()) > 0.95


def test_eigenpairs_are_those_of_the_definition() -> None:
    """G(q) from the windows of k-space, by a sum over every kernel and sample, at pixels on and between the coarse grid."""
    _, _, centre = maps_and_centre(4, noise=0.01)
    kernel, threshold = (5, 4), 0.02
    found = espirit(centre, SHAPE, n_sets=2, kernel=kernel, threshold=threshold)
    samples = centre.numpy().astype(np.complex128)
    windows = np.lib.stride_tricks.sliding_window_view(samples, kernel, axis=(1, 2))
    matrix = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 4 * kernel[0] * kernel[1])
    _, values, rows = np.linalg.svd(matrix, full_matrices=False)
    kept = rows[values > threshold * values[0]].reshape(-1, 4, *kernel)
    assert len(kept) == found.n_kernels
    vectors, eigenvalues = numbers(found)
    for pixel in ((0, 0), (13, 29), (30, 26), (33, 17), (59, 51)):
        phases = [
            np.exp(2j * np.pi * np.arange(k) * (p - n // 2) / n) for k, p, n in zip(kernel, pixel, SHAPE, strict=True)
        ]
        image = np.einsum("rcij,i,j->rc", kept, *phases)
        gram = image.T @ image.conj() / (kernel[0] * kernel[1])
        expected, basis = np.linalg.eigh(gram)
        np.testing.assert_allclose(eigenvalues[(slice(None), *pixel)], expected[:-3:-1], atol=5e-3)
        first = vectors[(0, slice(None), *pixel)]
        if expected[-1] - expected[-2] > 0.1:
            assert abs(first.conj() @ basis[:, -1]) > 0.999


def test_sets_are_orthonormal_and_in_order() -> None:
    _, _, centre = maps_and_centre(noise=0.02)
    vectors, eigenvalues = numbers(espirit(centre, SHAPE, n_sets=3))
    products = np.einsum("scyx,tcyx->yxst", vectors.conj(), vectors)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-4)
    assert bool((np.diff(eigenvalues, axis=0) <= 1e-4).all())
    assert 0 <= eigenvalues.min() <= eigenvalues.max() <= 1


def test_equals_sigpy_where_maps_are_defined() -> None:
    from sigpy.mri.app import EspiritCalib

    _, body, centre = maps_and_centre(noise=0.01)
    padded = np.zeros((6, *SHAPE), dtype=np.complex64)
    top, left = (n // 2 - WIDTH // 2 for n in SHAPE)
    padded[:, top : top + WIDTH, left : left + WIDTH] = centre.numpy()
    settings = {"calib_width": WIDTH, "thresh": 0.02, "kernel_width": 6, "crop": 0, "max_iter": 200}
    theirs, value = EspiritCalib(padded, output_eigenvalue=True, show_pbar=False, **settings).run()
    vectors, eigenvalues = numbers(espirit(centre, SHAPE, kernel=(6, 6), threshold=0.02))
    inside = np.abs(body) > 0.3
    assert float(agreement(vectors[0], theirs)[inside].min()) > 0.999
    np.testing.assert_allclose(eigenvalues[0][inside], np.abs(value).reshape(SHAPE)[inside], atol=0.01)


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_equals_bart_where_maps_are_defined(tmp_path: Path) -> None:
    _, body, centre = maps_and_centre(noise=0.01)
    padded = np.zeros((*SHAPE, 1, 6), dtype=np.complex64)
    top, left = (n // 2 - WIDTH // 2 for n in SHAPE)
    padded[top : top + WIDTH, left : left + WIDTH, 0] = centre.numpy().transpose(1, 2, 0)
    (tmp_path / "k.hdr").write_text(f"# Dimensions\n{SHAPE[0]} {SHAPE[1]} 1 6\n")
    (tmp_path / "k.cfl").write_bytes(padded.tobytes(order="F"))
    command = ["bart", "ecalib", "-m", "1", "-c", "0", "-t", "0.001", "-r", str(WIDTH), "k", "maps", "values"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    stored = np.fromfile(tmp_path / "maps.cfl", dtype=np.complex64).reshape(6, SHAPE[1], SHAPE[0])
    theirs = stored.transpose(0, 2, 1).astype(np.complex128)
    vectors, _ = numbers(espirit(centre, SHAPE, kernel=(6, 6), threshold=0.001**0.5))
    inside = np.abs(body) > 0.3
    assert float(agreement(vectors[0], theirs)[inside].min()) > 0.999


def test_noise_is_left_out_by_its_level() -> None:
    _, _, centre = maps_and_centre(noise=0.05)
    without = espirit(centre, SHAPE, threshold=1e-4)
    level = espirit(centre, SHAPE, threshold=1e-4, noise_std=0.05 * 2**0.5)
    assert level.n_kernels < 0.5 * without.n_kernels
    assert level.n_kernels >= espirit(maps_and_centre()[2], SHAPE, threshold=0.1).n_kernels


def test_the_result_does_not_depend_on_scale_or_phase() -> None:
    _, _, centre = maps_and_centre(noise=0.01)
    first = espirit(centre, SHAPE, n_sets=2)
    second = espirit(centre * 1j * 2.0**20, SHAPE, n_sets=2)
    torch.testing.assert_close(second.eigenvalues, first.eigenvalues, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_sets": 7}, r"n_sets: expected 1 to 6 \(the number of coils\), got 7"),
        ({"n_sets": 0}, "n_sets: expected 1 to 6"),
        ({"kernel": (6, 25)}, "calibration: expected at least 6 x 25 samples, got 24 x 24"),
    ],
)
def test_bad_arguments(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        espirit(maps_and_centre()[2], SHAPE, **changes)  # type: ignore[arg-type]  # one argument a case
