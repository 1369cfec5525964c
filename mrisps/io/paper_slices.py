"""The paper's MRI slices, one npz archive each, to fastMRI's layout.

The archives hold k-space with the zero frequency in the corner, kspace = fft2(image, norm="ortho") + noise of a real
image. fastMRI's layout, and everything here, has it in the centre, kspace_c = fftshift(fft2(ifftshift(image))). The
image itself is the same array in both; see `mrisps.io.arrays.centered`.

The archives do not have all of k-space: in the 20 validation slices about half of the columns are zero, and about a
third of the columns that the masks call acquired are among them. The paper's reconstructions take these zeros as
measured values, and so do files converted with an acceleration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar, misfit
from mrisps.io.arrays import centered, read_array
from mrisps.io.fastmri import write_kspace
from mrisps.io.files import files_in, make_folder

__all__ = [
    *("Acceleration", "PaperSlice", "convert_paper_slice", "convert_paper_slices", "paper_outputs", "read_paper_slice"),
]

Acceleration = Literal[8, 16]

_CENTER_FRACTION = {8: 0.04, 16: 0.02}
_CONTRAST = {"pd": "CORPD_FBK", "pdfs": "CORPDFS_FBK"}  # the folder's name to fastMRI's attribute ``acquisition``
_MAX_ARRAY_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class PaperSlice:
    """One slice as the paper has it, centred.

    ``kspace`` is complex64 (y, x), all columns that the archive has; ``target`` the float32 central crop (320, 320) of
    the reference image; ``masks`` are bool (x,), by acceleration.
    """

    kspace: NDArray[np.complex64]
    target: NDArray[np.float32]
    masks: dict[Acceleration, NDArray[np.bool_]]


def read_paper_slice(path: Path | str) -> PaperSlice:
    """Read one npz archive of the paper and centre it.

    A FileError if it is damaged, or ``kspace``, ``target``, ``mask_acc8`` or ``mask_acc16`` is missing or has the wrong
    type or shape, is not finite, or is zero everywhere.
    """

    def read(name: str, kind: str, *shapes: tuple[int | str, ...]) -> NDArray[np.generic]:
        array = read_array(Path(path), name, _MAX_ARRAY_BYTES)
        if wrong := misfit(array, kind, *shapes):
            raise FileError(path, wrong, field=name)
        if not np.isfinite(array).all():
            raise FileError(path, "has NaN or infinite values", field=name)
        if not array.any():
            raise FileError(path, "is zero everywhere", field=name)
        return array

    def mask(acceleration: Acceleration) -> NDArray[np.bool_]:
        values = read(f"mask_acc{acceleration}", "integers", kspace.shape[1:])
        if not np.isin(values, (0, 1)).all():
            raise FileError(path, "expected only 0 and 1", field=f"mask_acc{acceleration}")
        return np.fft.fftshift(values.astype(np.bool_))

    kspace, target = read("kspace", "complex", ("y", "x")), read("target", "floating", ("y", "x"))
    if target.shape[0] > kspace.shape[0] or target.shape[1] > kspace.shape[1]:
        raise FileError(path, f"expected at most {kspace.shape} pixels, got {target.shape}", field="target")
    return PaperSlice(centered(kspace), target.astype(np.float32), {8: mask(8), 16: mask(16)})


def convert_paper_slice(
    source: Path | str, destination: Path | str, *, acceleration: Acceleration | None, contrast: str | None = None
) -> None:
    """Write one of the paper's slices as a fastMRI file with one slice.

    With an acceleration k-space is zero outside the paper's mask, which goes into the data set ``mask``; None keeps all
    that the archive has. The contrast None stands for ``CORPD_FBK`` or ``CORPDFS_FBK`` if the archive lies in a folder
    ``pd`` or ``pdfs``.
    """
    source = Path(source)
    if acceleration not in (None, 8, 16):
        raise ValueError(f"acceleration: expected 8, 16 or None, got {acceleration!r}")
    record = read_paper_slice(source)
    attributes: dict[str, Scalar] = {"patient_id": source.stem, "converted_from": source.name}
    kspace, mask = record.kspace, None
    if acceleration is not None:
        mask = record.masks[acceleration]
        kspace = np.where(mask, kspace, np.complex64(0))
        attributes |= {"acceleration": acceleration, "center_fraction": _CENTER_FRACTION[acceleration]}
    write_kspace(
        destination,
        kspace[np.newaxis],
        target=record.target[np.newaxis],
        mask=mask,
        contrast=_CONTRAST.get(source.absolute().parent.name) if contrast is None else contrast,
        image_is_real=True,
        attributes=attributes,
    )


def paper_outputs(source: Path | str, destination: Path | str) -> dict[Path, Path]:
    """The npz archives in a folder and its subfolders, or one archive, and the file that each is converted to."""
    source, destination = Path(source), Path(destination)
    if source.is_file():
        return {source: destination / source.with_suffix(".h5").name}
    archives = files_in(source, {".npz"}, everywhere=True)
    return {archive: destination / archive.relative_to(source).with_suffix(".h5") for archive in archives}


def convert_paper_slices(
    source: Path | str,
    destination: Path | str,
    *,
    acceleration: Acceleration | None,
    progress: Callable[[int, int, Path], None] | None = None,
) -> tuple[Path, ...]:
    """Convert one npz archive, or every one in a folder and its subfolders, which the destination will have too.

    The progress is called after each file with (files done, files in all, path written); the files written are the
    result. A FileError if there are no archives, or one of them failed; those converted before it are there.
    """
    outputs = paper_outputs(source, destination)
    for done, (archive, path) in enumerate(outputs.items(), 1):
        make_folder(path.parent)
        convert_paper_slice(archive, path, acceleration=acceleration)
        if progress is not None:
            progress(done, len(outputs), path)
    return tuple(outputs.values())
