"""ISMRMRD acquisitions that came one by one, as the reconstruction server gets them: the same images as from a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.ismrmrd import IsmrmrdFile

__all__ = ["IsmrmrdMessages"]


class IsmrmrdMessages(IsmrmrdFile):
    """A measurement in memory; see `IsmrmrdFile` for the attributes and errors.

    Parameters
    ----------
    header_xml
        The XML header.
    heads
        Acquisition headers (acquisition,), with the members that ``ismrmrd.hdf5.acquisition_header_dtype`` has.
    samples
        complex64 samples of each acquisition, coil after coil, as bytes.
    name
        Stands for a file name in messages and results.
    """

    def __init__(
        self, header_xml: bytes, heads: NDArray[np.void], samples: Sequence[bytes], name: str = "stream"
    ) -> None:
        self.path, self._group = Path(name), "stream"
        self.heads, self._data = heads, samples
        if len(heads) == 0:
            raise FileError(self.path, "has no acquisitions", field="stream/data")
        self._interpret(header_xml, lambda: self.heads)

    def close(self) -> None:
        """Do nothing: the acquisitions are in memory."""

    def sha256(self) -> str:
        """Compute the SHA-256 of header, heads and samples."""
        digest = hashlib.sha256(self.header_xml)
        digest.update(self.heads.tobytes())
        for part in self._data:
            digest.update(part)
        return digest.hexdigest()

    def _samples(self, numbers: NDArray[np.int64]) -> NDArray[np.complex64]:
        shape = (len(numbers), int(self.readouts.n_coils[numbers[0]]), int(self.readouts.n_samples[numbers[0]]))
        for number in numbers:
            if len(self._data[number]) != 8 * shape[1] * shape[2]:
                message = (
                    f"has {len(self._data[number])} bytes, the head says {shape[1]} channels of {shape[2]} samples"
                )
                raise self.readouts.error(number, "data", message)
        joined = b"".join(self._data[number] for number in numbers)
        return np.frombuffer(joined, np.complex64).reshape(shape)
