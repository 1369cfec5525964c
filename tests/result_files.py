"""Result files for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Scalar
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.json_text import JsonValue
from mrisps.io.result_file import ResultWriter


def write_result(
    path: Path,
    images: NDArray[np.float32] | NDArray[np.complex64],
    *,
    extras: Mapping[str, NDArray[np.generic]] | None = None,
    certificates: Sequence[Mapping[str, JsonValue] | None] | None = None,
    attributes: Mapping[str, Scalar] | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    header: IsmrmrdHeader | None = None,
) -> None:
    """Write images (slice, y, x), and extras (slice, ...), as a result."""
    with ResultWriter(path, len(images), attributes=attributes, provenance=provenance, header=header) as writer:
        for index, image in enumerate(images):
            parts = {name: extra[index] for name, extra in (extras or {}).items()}
            writer.write_slice(index, image, parts, None if certificates is None else certificates[index])
