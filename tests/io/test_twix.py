"""Reading Siemens raw data."""

import struct
from pathlib import Path

import numpy as np
import pytest
from raw_files import normal, write_twix

from mrisps.errors import FileError
from mrisps.io.open import open_kspace
from mrisps.io.twix import TwixFile, twix_headers

pytest.importorskip("twixtools")

KSPACE = normal((2, 16, 12))


@pytest.mark.parametrize("is_vb", [False, True])
def test_a_full_slice(tmp_path: Path, is_vb: bool) -> None:
    with open_kspace(write_twix(tmp_path / "a.dat", KSPACE, is_vb=is_vb)) as file:
        assert isinstance(file, TwixFile)
        assert (file.n_slices, file.n_coils, file.shape, file.recon_shape, file.contrast) == (
            1,
            2,
            (16, 12),
            (8, 12),
            "gre",
        )
        record = file.read_slice(0)
    np.testing.assert_array_equal(record.kspace, KSPACE)
    assert record.readout_oversampling == 2
    assert record.mask is not None
    assert record.mask.all()
    assert record.geometry is not None
    assert record.geometry.field_of_view_mm == (400, 150, 5)
    assert (record.geometry.x_direction, record.geometry.y_direction) == ((1, 0, 0), (0, 1, 0))
    assert record.attributes["sample_time_us"] == 5
    with pytest.raises(FileError, match="is closed"):
        file.read_slice(0)


def test_flags(tmp_path: Path) -> None:
    flags = {0: ("NOISEADJSCAN",), 1: ("PHASCOR",), 2: ("PATREFSCAN",), 3: ("PATREFSCAN", "PATREFANDIMASCAN")}
    file = TwixFile(write_twix(tmp_path / "a.dat", KSPACE, flags=flags))
    record = file.read_slice(0)
    assert record.mask is not None
    np.testing.assert_array_equal(np.flatnonzero(record.mask), np.arange(3, 12))
    assert record.calibration is not None
    np.testing.assert_array_equal(np.flatnonzero(record.calibration.any(axis=(0, 1))), [2, 3])
    assert record.noise_scan is not None
    dwell = np.floor(76800 / 16) / 10
    np.testing.assert_allclose(record.noise_scan, KSPACE[:, :, 0] * np.sqrt(dwell / (5 * 0.793)), rtol=1e-5)
    assert "left out: phase correction" in file.notes


def test_counters_and_averages(tmp_path: Path) -> None:
    changes = {line: {"Sli": line % 2, "Lin": line // 2} for line in range(12)}
    file = TwixFile(write_twix(tmp_path / "a.dat", KSPACE, changes=changes))
    assert file.n_slices == 2
    np.testing.assert_array_equal(file.read_slice(1).kspace[:, :, :6], KSPACE[:, :, 1::2])
    changes = {line: {"Ave": line % 2, "Lin": line // 2} for line in range(12)}
    path = write_twix(tmp_path / "b.dat", KSPACE, changes=changes)
    np.testing.assert_allclose(TwixFile(path).read_slice(0).kspace[:, :, 0], KSPACE[:, :, :2].mean(axis=2), rtol=1e-5)
    assert TwixFile(path, average="separate").n_slices == 2


def test_synchronisation_blocks_are_skipped(tmp_path: Path) -> None:
    """Their length is in the header, and is no multiple of channels."""
    path = write_twix(tmp_path / "a.dat", KSPACE)
    content = bytearray(path.read_bytes())
    start = 10_240 + struct.unpack_from("<I", content, 10_240)[0]
    layout = twix_headers(False)
    block: np.ndarray = np.zeros(1, layout.block)
    block["FlagsAndDMALength"] = layout.block.itemsize + 40
    block["EvalInfoMask"] = 1 << layout.flags["SYNCDATA"]
    content[start:start] = block.tobytes() + bytes(40)
    struct.pack_into("<Q", content, 8 + 16, len(content) - 10_240)
    path.write_bytes(content)
    file = TwixFile(path)
    np.testing.assert_array_equal(file.read_slice(0).kspace, KSPACE)
    assert "readouts: 12 imaging, 1 synchronisation" in file.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flags": {4: ("REFLECT",)}}, "REFLECT: measurement block 4: is a line that was read backwards"),
        (
            {"changes": {4: {"Lin": 3}}},
            "Lin: measurement block 4: line 3 of this image was acquired before, by measurement block 3",
        ),
        ({"changes": {4: {"Lin": 99}}}, "Lin: measurement block 4: 99 is index 99 of 12"),
        ({"changes": {4: {"CenterLin": 3}}}, "CenterLin: measurement block 4: is 3, but 6"),
        ({"changes": {4: {"CenterCol": 3}}}, "CenterCol: measurement block 4"),
        ({"trajectory": 2}, "sKSpace.ucTrajectory: is 2; only Cartesian (1) is supported"),
        ({"end": False}, "FlagsAndDMALength: measurement block 12: the file is truncated"),
    ],
)
def test_bad_blocks(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write_twix(tmp_path / "a.dat", KSPACE, **options)  # type: ignore[arg-type]  # by name
    with pytest.raises(FileError) as caught:
        TwixFile(path).read_slice(0)
    assert message in str(caught.value)


def test_unknown_version_and_truncation(tmp_path: Path) -> None:
    path = write_twix(tmp_path / "a.dat", KSPACE)
    content = path.read_bytes()
    (tmp_path / "b.dat").write_bytes(b"\xff" * 4096)
    with pytest.raises(FileError, match="is no Siemens raw data of a known version"):
        open_kspace(tmp_path / "b.dat")
    for n in (10, 100, 10_300, len(content) - 200):
        (tmp_path / "c.dat").write_bytes(content[:n])
        with pytest.raises(FileError, match=r"c\.dat: .*(bytes|truncated)"):
            open_kspace(tmp_path / "c.dat")


def test_without_twixtools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mrisps.errors import MrispsError

    path = write_twix(tmp_path / "a.dat", KSPACE)
    monkeypatch.setitem(sys.modules, "twixtools", None)
    with pytest.raises(MrispsError, match=r"need the package twixtools: pip install 'mrisps\[twix\]'"):
        open_kspace(path)


def test_real_phantom_as_twixtools_reads_it(shared_data: Path) -> None:
    import twixtools

    path = shared_data / "raw" / "siemens_ve11c_gre_2ch.dat"
    with open_kspace(path) as file:
        record = file.read_slice(0)
    assert (record.n_coils, record.shape, record.recon_shape, record.contrast) == (2, (320, 160), (160, 160), "gre")
    blocks = twixtools.read_twix(str(path), verbose=False, parse_pmu=False, parse_geometry=False)[-1]["mdb"]
    for block in blocks:
        np.testing.assert_array_equal(record.kspace[:, :, block.cLin], block.data)
    geometry = record.geometry
    assert geometry is not None
    np.testing.assert_allclose(
        geometry.slice_direction, (0, 0.0383878, 0.9992630), atol=1e-5
    )  # sNormal of the protocol
    np.testing.assert_allclose(
        np.cross(geometry.x_direction, geometry.y_direction), geometry.slice_direction, atol=1e-5
    )
