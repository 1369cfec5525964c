"""Acquisitions from a stream: the same slices as from the file."""

from pathlib import Path

import numpy as np
import pytest
from raw_files import CALIBRATION, N_COILS, N_X, N_Y, NOISE, RawLine, header, lines_of, normal, write_mrd

from mrisps.errors import FileError
from mrisps.io.image_volume import cropped_geometry
from mrisps.io.ismrmrd import IsmrmrdFile
from mrisps.io.ismrmrd_messages import IsmrmrdMessages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    lines = lines_of(normal((N_COILS, N_Y, N_X)), range(0, N_X, 2))
    lines += lines_of(normal((N_COILS, N_Y, N_X), 1), range(0, N_X, 2), repetition=1)
    lines += lines_of(normal((N_COILS, N_Y, N_X), 2), range(4, 8), head={"flags": CALIBRATION})
    lines.append(RawLine(normal((N_COILS, 7), 3), {"flags": NOISE}))
    return write_mrd(tmp_path / "raw.mrd", lines)


def messages_of(path: Path, cut: int = 0) -> IsmrmrdMessages:
    from mrisps.io.hdf5 import Hdf5Reader

    with Hdf5Reader(path) as file:
        records = file.read_records("dataset/data", slice(0, file.shape("dataset/data")[0]))
        samples = [part.astype(np.float32).tobytes() for part in records["data"]]
        samples[0] = samples[0][: len(samples[0]) - cut]
        return IsmrmrdMessages(file.read_text("dataset/xml"), np.ascontiguousarray(records["head"]), samples)


def test_same_as_the_file(path: Path) -> None:
    stream = messages_of(path)
    with IsmrmrdFile(path) as file:
        assert (
            (stream.n_slices, stream.shape, stream.notes)
            == (file.n_slices, file.shape, file.notes)
            == (2, *((N_Y, N_X), file.notes))
        )
        for ours, theirs in zip(stream.slices(), file.slices(), strict=True):
            np.testing.assert_array_equal(ours.kspace, theirs.kspace)
            np.testing.assert_array_equal(ours.mask, theirs.mask)
            np.testing.assert_array_equal(ours.calibration, theirs.calibration)
            np.testing.assert_array_equal(ours.noise_scan, theirs.noise_scan)
            assert (ours.labels, ours.geometry) == (theirs.labels, theirs.geometry)
    assert len(stream.sha256()) == 64
    assert stream.sha256() != messages_of(path, cut=8).sha256()


def test_wrong_length_is_named(path: Path) -> None:
    with pytest.raises(FileError, match="stream: data: acquisition 0: has 376 bytes"):
        messages_of(path, cut=8).read_slice(0)
    with pytest.raises(FileError, match="has no acquisitions"):
        IsmrmrdMessages(header().to_xml(), messages_of(path).heads[:0], [])


@pytest.mark.parametrize(
    ("whole", "shape", "moved"), [((16, 12), (8, 12), 0), ((16, 12), (7, 12), -1), ((15, 12), (7, 12), 0)]
)
def test_place_of_a_crop(path: Path, whole: tuple[int, int], shape: tuple[int, int], moved: int) -> None:
    """A ramp whose pixels know their row: the row that the geometry puts at the position."""
    from mrisps.io.images import center_crop

    record = messages_of(path).read_slice(0)
    geometry = cropped_geometry(record, whole, shape)
    assert geometry is not None
    assert record.geometry is not None
    rows = center_crop(np.repeat(np.arange(whole[0])[:, np.newaxis], whole[1], axis=1), shape)
    pixel = 400 / N_Y  # mm
    assert rows[shape[0] // 2, 0] - whole[0] // 2 == moved
    assert geometry.position_mm[0] - record.geometry.position_mm[0] == pytest.approx(moved * pixel)
    assert geometry.field_of_view_mm[0] == pytest.approx(shape[0] * pixel)
