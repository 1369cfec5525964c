"""ISMRMRD acquisitions that came one by one, as the reconstruction server gets them: the same images as from a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.ismrmrd import IsmrmrdFile
from mrisps.io.raw_file import Ints

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
        self.heads, self._parts = heads, samples
        if len(heads) == 0:
            raise FileError(self.path, "has no acquisitions", field="stream/data")
        self._interpret(header_xml, heads)

    def close(self) -> None:
        """Do nothing: the acquisitions are in memory."""

    def head_of(self, index: int) -> NDArray[np.void]:
        """Header () of the first acquisition of a slice."""
        image = self.images[index // len(self._positions)]
        head: NDArray[np.void] = self.heads[int(image.imaging[0])]
        return head

    def sha256(self) -> str:
        """Compute the SHA-256 of header, heads and samples."""
        digest = hashlib.sha256(self.header_xml or b"")
        digest.update(self.heads.tobytes())
        for part in self._parts:
            digest.update(part)
        return digest.hexdigest()

    def _samples(self, numbers: Ints) -> NDArray[np.complex64]:
        first = self.readouts[numbers[0]]
        n_coils, n_samples = int(first["n_coils"]), int(first["n_samples"])
        parts = [self._parts[number] for number in numbers]
        n_bytes = np.asarray([len(part) for part in parts])
        message = f"has {{}} bytes, the head says {n_coils} channels of {n_samples} samples"
        self._refuse(numbers, n_bytes != 8 * n_coils * n_samples, "data", message, n_bytes)
        return np.frombuffer(b"".join(parts), np.complex64).reshape(len(numbers), n_coils, n_samples)
