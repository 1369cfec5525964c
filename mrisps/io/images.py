"""Grey images in PNG, TIFF and NPY files, for denoising and super-resolution.

Integer files are scaled by what their type can hold, never by what the image has: uint8 by 1/255, uint16 by 1/65535.
Floating-point files are taken as they are.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import write_bytes
from mrisps.errors import FileError
from mrisps.io.acquisition import misfit
from mrisps.io.arrays import read_array
from mrisps.io.files import check_is_file

__all__ = ["IMAGE_SUFFIXES", "center_crop", "image_bytes", "read_image", "write_image"]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""File name endings, in small letters, that `read_image` and `write_image` know."""

_T = TypeVar("_T", bound=np.generic)
_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as Pillow's convert("L")
_TOPS = {"b1": 1, "u1": 255, "u2": 65535, "f2": 1, "f4": 1, "f8": 1}  # the value that stands for 1, by element type
# What a damaged picture makes Pillow raise, besides OSError (which UnidentifiedImageError is).
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, TypeError, IndexError, KeyError)


def center_crop(image: NDArray[_T], shape: tuple[int, int]) -> NDArray[_T]:
    """Cut the central part (y, x) out of the last two axes, as ``fastmri.data.transforms.center_crop``.

    A ValueError if the part is empty or larger than the image.
    """
    n_y, n_x = image.shape[-2:]
    if not (0 < shape[0] <= n_y and 0 < shape[1] <= n_x):
        raise ValueError(f"shape: expected at most ({n_y}, {n_x}) and at least (1, 1), got {shape}")
    top, left = (n_y - shape[0]) // 2, (n_x - shape[1]) // 2
    return image[..., top : top + shape[0], left : left + shape[1]]


def read_image(path: Path | str, *, color_to_grey: bool = False) -> NDArray[np.float32]:
    """Read a grey image as float32 (y, x); integer types are scaled to [0, 1].

    Parameters
    ----------
    path
        A PNG, TIFF or NPY file.
    color_to_grey
        Convert a colour image (ITU-R BT.601 luma; an opaque alpha channel is dropped) instead of refusing it.

    Raises
    ------
    FileError
        The file is missing, damaged, of another format, not a single grey image, of an unexpected type, or not finite.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise FileError(path, f"expected a file name ending in {', '.join(IMAGE_SUFFIXES)}, got {suffix or 'none'!r}")
    check_is_file(path)
    stored = read_array(path) if suffix == ".npy" else _read_picture(path, "PNG" if suffix == ".png" else "TIFF")
    top = _TOPS.get(stored.dtype.str[1:])
    if top is None:
        raise FileError(path, f"expected uint8, uint16 or floating-point pixels, got {stored.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):  # signalling NaN, and what is too large
        pixels = np.asarray(stored.astype(np.float64) / top)
        if pixels.ndim == 3 and pixels.shape[-1] in (2, 3, 4):
            pixels = _to_grey(path, pixels, color_to_grey)
        if pixels.ndim != 2 or pixels.size == 0:
            raise FileError(path, f"expected one grey image (y, x), got shape {pixels.shape}")
        image = pixels.astype(np.float32)
    if not np.isfinite(image).all():
        raise FileError(path, "has NaN or infinite pixels")
    return image


def write_image(path: Path | str, image: NDArray[np.float32], *, bits: Literal[8, 16] = 8) -> None:
    """Write a grey image (y, x), atomically.

    The name ends in ``.png`` (integers of so many bits; values are clipped to [0, 1]), ``.tif``, ``.tiff`` or ``.npy``
    (float32, as it is). A ValueError for another one, and for an image that is not real, two-dimensional and finite.
    """
    write_bytes(path, image_bytes(Path(path), image, bits=bits))


def image_bytes(path: Path, image: NDArray[np.float32], *, bits: Literal[8, 16] = 8) -> bytes:
    """What :func:`write_image` writes into a file of this name."""
    from PIL import Image

    if wrong := misfit(image, "floating", ("y", "x")):
        raise ValueError(f"image: {wrong}")
    if not np.isfinite(image).all():
        raise ValueError("image: has NaN or infinite pixels")
    suffix, buffer = path.suffix.lower(), io.BytesIO()
    if suffix == ".png":
        top, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
        levels = np.rint(np.clip(image.astype(np.float64), 0, 1) * top).astype(dtype)
        Image.fromarray(levels).save(buffer, format="PNG")
    elif suffix in (".tif", ".tiff"):
        Image.fromarray(image.astype(np.float32)).save(buffer, format="TIFF")
    elif suffix == ".npy":
        np.save(buffer, image.astype(np.float32), allow_pickle=False)
    else:
        raise ValueError(f"path: expected a name ending in {', '.join(IMAGE_SUFFIXES)}, got {path.name!r}")
    return buffer.getvalue()


def _read_picture(path: Path, kind: str) -> NDArray[np.generic]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata, which are not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=(kind,)) as picture:
                n_pages = getattr(picture, "n_frames", 1)
                if n_pages != 1:
                    raise FileError(path, f"expected one image, got {n_pages}")
                if picture.mode == "P":
                    return np.asarray(picture.convert("RGBA" if "transparency" in picture.info else "RGB"))
                return np.asarray(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise FileError(path, f"claims too many pixels: {error}") from error
    except _DAMAGED as error:
        raise FileError(path, f"is no readable {kind} image: {error}") from error


def _to_grey(path: Path, pixels: NDArray[np.float64], color_to_grey: bool) -> NDArray[np.float64]:
    n_channels = pixels.shape[-1]
    if not color_to_grey:
        message = f"is a colour image or has transparency ({n_channels} channels); ask for conversion to grey to use it"
        raise FileError(path, message)
    if n_channels in (2, 4) and (pixels[..., -1] != 1).any():
        raise FileError(path, "is partly transparent, expected an opaque image")
    return pixels[..., 0] if n_channels == 2 else pixels[..., :3] @ np.asarray(_GREY_WEIGHTS)
