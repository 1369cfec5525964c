"""Where an image lies in DICOM's terms, turned to the orientation that viewers show.

ISMRMRD's positions and directions and DICOM's patient coordinates are the same (LPS: to the left, to the back, to the head;
ISMRMRD ``doc/mrd_raw_data.md``; DICOM PS3.3 C.7.6.2.1.1). Pixel [n_y // 2, n_x // 2] is at the position, because that is where
a centred transform puts it. ImagePositionPatient is the centre of the first pixel that is displayed. The outline of an image with
an even number of pixels lies half a pixel off the position. Rows and columns are turned and flipped by whole quarter turns, so that
heads are up and the patient's left is on the right; pixels are not interpolated. Only the directions in the plane count: DICOM's
normal is their cross product, whatever sign the measurement's slice direction has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Geometry

__all__ = ["Placed", "placed"]

Real = NDArray[np.float32]

_RIGHT_AND_DOWN = (((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)), ((1, 0, 0), (0, 1, 0)))
"""Of sagittal, coronal and axial images, as they are displayed: directions of increasing column and of increasing row."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An image as it is displayed, and where that is: pixels (row, column), and DICOM's attributes of its plane."""

    pixels: Real
    position: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]
    is_turned: bool


def placed(pixels: Real, geometry: Geometry) -> Placed:
    """Turn an image to the usual orientation, and say where its first pixel is.

    Parameters
    ----------
    pixels
        (y, x); pixel [n_y // 2, n_x // 2] is at the position of the geometry.
    geometry
        Where the image lies.

    Raises
    ------
    ValueError
        The directions of the plane are not orthonormal to 1e-3, or the field of view is not positive: no place is invented.
    """
    axes = np.asarray([geometry.y_direction, geometry.x_direction], np.float64)
    sizes, shape = geometry.field_of_view_mm[:2], pixels.shape
    if not np.isfinite(axes).all() or np.abs(axes @ axes.T - np.eye(2)).max() > 1e-3:
        raise ValueError("the directions of readout and phase encoding are not orthonormal")
    if not np.isfinite([*geometry.field_of_view_mm, *geometry.position_mm]).all() or not min(sizes) > 0:
        raise ValueError("position or field of view are unknown")
    axes[0] /= np.linalg.norm(axes[0])
    axes[1] -= axes[0] * (axes[0] @ axes[1])
    axes[1] /= np.linalg.norm(axes[1])
    right, down = np.asarray(_RIGHT_AND_DOWN[int(np.abs(np.cross(*axes)).argmax())], np.float64)
    is_turned = abs(axes[0] @ right) > abs(axes[1] @ right)
    order = (1, 0) if is_turned else (0, 1)  # our axes that count rows and columns
    shown, first = pixels.transpose(order), np.asarray(geometry.position_mm, np.float64)
    signs, spacing = [], []
    for place, (axis, wanted) in enumerate(zip(order, (down, right), strict=True)):
        sign = 1 if axes[axis] @ wanted >= 0 else -1
        shown = np.flip(shown, place) if sign < 0 else shown
        step, n = sizes[axis] / shape[axis], shape[axis]
        first = first + axes[axis] * step * ((0 if sign > 0 else n - 1) - n // 2)
        signs.append(sign)
        spacing.append(step)
    down, right = signs[0] * axes[order[0]], signs[1] * axes[order[1]]
    return Placed(np.ascontiguousarray(shown), first, right, down, (spacing[0], spacing[1]), bool(is_turned))
