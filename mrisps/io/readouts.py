"""The readouts of a raw-data file as a table, for formats that are lists of readouts (ISMRMRD, twix).

A reader fills the table from the headers of the file, without the samples; `mrisps.io.raw_images` makes images of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError

__all__ = [
    *("CALIBRATION", "CALIBRATION_AND_IMAGING", "COUNTERS", "IMAGING", "KINDS", "NOISE"),
    *("Floats", "Ints", "RawGrid", "Readouts"),
]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

KINDS = (
    *("imaging", "calibration", "calibration and imaging", "noise", "navigation", "phase correction", "feedback"),
    *("dummy", "surface coil correction", "phase stabilisation", "synchronisation"),
)
"""What a readout is for. All but the first four are left out of images."""
IMAGING, CALIBRATION, CALIBRATION_AND_IMAGING, NOISE = range(4)

COUNTERS = ("line", "partition", "average", "slice", "contrast", "phase", "repetition", "set")
"""The counters of a readout. Images differ in the last five of them."""


@dataclass(frozen=True, eq=False)
class Readouts:
    """The readouts of a file in its order, one entry each; all arrays are (readout,), directions and positions (readout, 3).

    Parameters
    ----------
    record
        What the format calls one of them, for messages: ``"acquisition"``.
    field_names
        The format's names for our names, for messages; ours where there is none.
    kind
        Index into `KINDS`.
    encoding
        Number of the encoding space.
    counters
        One array for each of `COUNTERS`.
    n_coils, n_samples
        Size of the readout.
    center_sample
        The sample with the zero frequency.
    discard_pre, discard_post
        Samples at both ends that are no data.
    is_reversed
        Whether the samples were taken backwards (EPI).
    dwell_us
        Time a sample; 0 stands for unknown.
    position_mm, y_direction, x_direction, slice_direction
        Centre of the slice and directions of readout, phase encoding and slice, in the patient's coordinates (LPS).
    """

    source: Path
    record: str
    field_names: Mapping[str, str]
    kind: Ints
    encoding: Ints
    counters: Mapping[str, Ints]
    n_coils: Ints
    n_samples: Ints
    center_sample: Ints
    discard_pre: Ints
    discard_post: Ints
    is_reversed: NDArray[np.bool_]
    dwell_us: Floats
    position_mm: Floats
    y_direction: Floats
    x_direction: Floats
    slice_direction: Floats

    def __len__(self) -> int:
        return len(self.kind)

    def error(self, index: int | np.integer, field: str, message: str) -> FileError:
        """The error of one readout."""
        return FileError(
            self.source, f"{self.record} {int(index)}: {message}", field=self.field_names.get(field, field)
        )

    def where(self, *kinds: int) -> NDArray[np.bool_]:
        """Which readouts are of one of these kinds."""
        return np.isin(self.kind, kinds)


@dataclass(frozen=True)
class RawGrid:
    """The grid of an encoding space: sizes, and the counters of the lines through the k-space centre.

    Parameters
    ----------
    n_y, n_x, n_z
        Samples along readout, first and second phase encoding.
    center_line, center_partition
        Counters that go to n_x // 2 and n_z // 2.
    limits
        (minimum, maximum) of counters, where the header states them.
    """

    n_y: int
    n_x: int
    n_z: int
    center_line: int
    center_partition: int
    limits: Mapping[str, tuple[int, int]]
