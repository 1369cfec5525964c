"""Reading ISMRMRD raw data."""

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import BOTH, CALIBRATION, N_COILS, N_X, N_Y, NOISE, RawLine, header, lines_of, normal, write_mrd

from mrisps.errors import FileError
from mrisps.io.conversion import convert_kspace
from mrisps.io.ismrmrd import IsmrmrdFile
from mrisps.io.open import open_kspace

KSPACE = normal((N_COILS, N_Y, N_X))


def test_a_full_slice(tmp_path: Path) -> None:
    path = write_mrd(tmp_path / "a.h5", lines_of(KSPACE, range(N_X), head={"position": (1, 2, 3)}))
    with open_kspace(path) as file:
        assert isinstance(file, IsmrmrdFile)
        assert (file.format, file.n_slices, file.n_coils, file.shape) == ("ISMRMRD", 1, N_COILS, (N_Y, N_X))
        record = file.read_slice(0)
        np.testing.assert_array_equal(record.kspace, KSPACE)
        assert record.mask is not None
        assert record.mask.all()
        assert record.recon_shape == (N_Y // 2, N_X)
        assert record.readout_oversampling == 2
        assert record.noise_scan is None
        assert record.calibration is None
        assert record.geometry is not None
        assert record.geometry.position_mm == (1, 2, 3)
        assert record.geometry.field_of_view_mm == (400, 150, 5)
        with pytest.raises(FileError, match="slice: expected 0 to 0, got 1"):
            file.read_slice(1)


def test_lines_go_where_the_centre_says(tmp_path: Path) -> None:
    """Partial Fourier: line numbers 0 to 7, of which 2 is the centre; it goes to column 6."""
    lines = [RawLine(KSPACE[:, :, 4 + line], {}, {"kspace_encode_step_1": line}) for line in range(8)]
    path = write_mrd(tmp_path / "a.h5", lines, header(line_limits=(0, 7, 2)))
    record = IsmrmrdFile(path).read_slice(0)
    assert record.mask is not None
    np.testing.assert_array_equal(np.flatnonzero(record.mask), np.arange(4, 12))
    np.testing.assert_array_equal(record.kspace[:, :, 4:], KSPACE[:, :, 4:])
    assert not record.kspace[:, :, :4].any()


def test_asymmetric_echo_and_discarded_samples(tmp_path: Path) -> None:
    """12 of 16 samples around sample 4, the first and the last two of which are no data: rows 5 to 13."""
    lines = [
        RawLine(
            KSPACE[:, 4:16, x], {"center_sample": 4, "discard_pre": 1, "discard_post": 2}, {"kspace_encode_step_1": x}
        )
        for x in range(N_X)
    ]
    record = IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines)).read_slice(0)
    assert record.mask is not None
    assert record.mask.shape == (N_Y, N_X)
    np.testing.assert_array_equal(np.flatnonzero(record.mask.any(axis=1)), np.arange(5, 14))
    np.testing.assert_array_equal(record.kspace[:, 5:14], KSPACE[:, 5:14])
    assert not record.kspace[:, :5].any()
    assert not record.kspace[:, 14:].any()


@pytest.mark.parametrize(
    ("mode", "in_image"), [("embedded", True), ("interleaved", True), ("separate", False), (None, False)]
)
def test_calibration_lines(tmp_path: Path, mode: str | None, in_image: bool) -> None:
    lines = lines_of(KSPACE, [0, 3, 9]) + lines_of(KSPACE, [5, 7], head={"flags": CALIBRATION})
    lines += lines_of(KSPACE, [6], head={"flags": BOTH})
    path = write_mrd(tmp_path / "a.h5", lines, header(acceleration=(3, 1), calibration_mode=mode))
    record = IsmrmrdFile(path).read_slice(0)
    assert record.mask is not None
    expected = [0, 3, 5, 6, 7, 9] if in_image else [0, 3, 6, 9]
    np.testing.assert_array_equal(np.flatnonzero(record.mask), expected)
    if in_image:
        assert record.calibration is None
    else:
        assert record.calibration is not None
        np.testing.assert_array_equal(np.flatnonzero(record.calibration.any(axis=(0, 1))), [5, 6, 7])
        np.testing.assert_array_equal(record.calibration[:, :, 5:8], KSPACE[:, :, 5:8])


def test_a_reference_scan_for_all_repetitions(tmp_path: Path) -> None:
    lines = lines_of(KSPACE, [5, 6, 7], head={"flags": CALIBRATION})
    lines += lines_of(KSPACE, [0, 6]) + lines_of(2 * KSPACE, [0, 6], repetition=1)
    with IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines)) as file:
        assert file.n_slices == 2
        for record in file.slices():
            assert record.calibration is not None
            np.testing.assert_array_equal(record.calibration[:, :, 5:8], KSPACE[:, :, 5:8])


def test_noise_is_scaled_to_the_bandwidth_of_the_image(tmp_path: Path) -> None:
    """Noise of variance proportional to the bandwidth: after scaling it has the standard deviation of the image's."""
    dwell, noise_dwell, bandwidth = 2.0, 18.0, 0.8
    noise = normal((N_COILS, 4000), seed=1) * np.float32(np.sqrt(bandwidth / noise_dwell))
    image = normal((N_COILS, N_Y, N_X)) * np.float32(np.sqrt(1 / dwell))
    lines = [RawLine(noise, {"flags": NOISE, "sample_time_us": noise_dwell})]
    lines += lines_of(image, range(N_X), head={"sample_time_us": dwell})
    path = write_mrd(tmp_path / "a.h5", lines, header(relative_receiver_noise_bandwidth=bandwidth))
    record = IsmrmrdFile(path).read_slice(0)
    assert record.noise_scan is not None
    assert record.noise_scan.shape == (N_COILS, 4000)
    np.testing.assert_allclose(record.noise_scan.std(axis=1), image.std(axis=(1, 2)), rtol=0.1)
    np.testing.assert_allclose(record.noise_scan, noise * np.sqrt(noise_dwell / (dwell * bandwidth)), rtol=1e-5)
    path = write_mrd(tmp_path / "c.h5", lines, header(relative_receiver_noise_bandwidth=-1.0))
    with pytest.raises(FileError, match=r"relativeReceiverNoiseBandwidth: expected a number > 0, got -1\.0"):
        IsmrmrdFile(path).read_slice(0)
    lines[0].head = {"flags": NOISE, "sample_time_us": 0.0}
    file = IsmrmrdFile(write_mrd(tmp_path / "b.h5", lines))
    assert file.read_slice(0).noise_scan is None
    assert any("noise scan is not used" in line for line in file.notes)


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (23, "navigation"),
        (24, "phase correction"),
        (26, "feedback"),
        (27, "dummy"),
        (28, "feedback"),
        (29, "surface coil correction"),
        (30, "phase stabilisation"),
        (31, "phase stabilisation"),
    ],
)
def test_other_readouts_are_left_out(tmp_path: Path, flag: int, kind: str) -> None:
    other = [RawLine(normal((1, 5)), {"flags": 1 << (flag - 1)}, {"kspace_encode_step_1": 999})]
    file = IsmrmrdFile(write_mrd(tmp_path / "a.h5", other + lines_of(KSPACE, range(N_X))))
    np.testing.assert_array_equal(file.read_slice(0).kspace, KSPACE)
    assert f"left out: {kind}" in file.notes
    assert f"readouts: 12 imaging, 1 {kind}" in file.notes


def test_every_counter_is_a_slice_of_its_own(tmp_path: Path) -> None:
    """In any order in the file; the slice counts fastest."""
    counters: list[dict[str, int]] = [
        {"contrast": c, "repetition": r, "set": t, "phase": p, "slice": s}
        for c in (0, 1)
        for r in (0, 2)
        for t in (0, 1)
        for p in (0, 3)
        for s in (0, 1)
    ]
    images = {tuple(sorted(counts.items())): normal((N_COILS, N_Y, N_X), seed=i) for i, counts in enumerate(counters)}
    lines = [
        line
        for x in range(N_X)
        for counts in reversed(counters)
        for line in lines_of(images[tuple(sorted(counts.items()))], [x], **counts)
    ]
    with IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines)) as file:
        assert file.n_slices == 32
        for record in file.slices():
            np.testing.assert_array_equal(record.kspace, images[tuple(sorted(record.labels.items()))])
        assert [file.read_slice(i).labels["slice"] for i in range(4)] == [0, 1, 0, 1]


def test_averages(tmp_path: Path) -> None:
    lines = lines_of(KSPACE, range(N_X)) + lines_of(3 * KSPACE, range(0, N_X, 2), average=1)
    path = write_mrd(tmp_path / "a.h5", lines)
    file = IsmrmrdFile(path)
    kspace = file.read_slice(0).kspace
    np.testing.assert_allclose(kspace[:, :, ::2], 2 * KSPACE[:, :, ::2], rtol=1e-6)
    np.testing.assert_array_equal(kspace[:, :, 1::2], KSPACE[:, :, 1::2])
    assert "2 averages: each line is the mean of its averages" in file.notes
    apart = IsmrmrdFile(path, average="separate")
    assert [record.labels["average"] for record in apart.slices()] == [0, 1]
    np.testing.assert_array_equal(apart.read_slice(1).kspace[:, :, ::2], 3 * KSPACE[:, :, ::2])


def test_encodings(tmp_path: Path) -> None:
    text = header().to_xml()
    start, end = text.index(b"<encoding>"), text.index(b"</encoding>") + len(b"</encoding>")
    second = header(encoded_matrix=(N_Y, 6, 1), recon_matrix=(N_Y // 2, 6, 1), line_limits=(0, 5, 3)).to_xml()
    both = text[:end] + second[second.index(b"<encoding>") : second.index(b"</encoding>")] + b"</encoding>" + text[end:]
    lines = lines_of(KSPACE, range(N_X)) + lines_of(2 * KSPACE[:, :, :6], range(6), head={"encoding_space_ref": 1})
    assert start > 0
    path = write_mrd(tmp_path / "a.h5", lines, both)
    file = IsmrmrdFile(path)
    np.testing.assert_array_equal(file.read_slice(0).kspace, KSPACE)
    assert "encoding 0 of 2" in file.notes
    assert "readouts: 12 imaging, 6 of other encoding spaces" in file.notes
    np.testing.assert_array_equal(IsmrmrdFile(path, encoding=1).read_slice(0).kspace, 2 * KSPACE[:, :, :6])
    with pytest.raises(FileError, match="encoding: expected 0 to 1, got 2"):
        IsmrmrdFile(path, encoding=2)


def test_a_volume(tmp_path: Path) -> None:
    volume = normal((N_COILS, N_Y, N_X, 4))
    lines = [line for z in (0, 2, 3) for line in lines_of(volume[..., z], range(N_X), kspace_encode_step_2=z)]
    head = header(encoded_matrix=(N_Y, N_X, 4), partition_limits=(0, 3, 2))
    file = IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines, head))
    assert file.n_z == 4
    read = file.read_volume(0)
    np.testing.assert_array_equal(read.mask, np.broadcast_to([True, False, True, True], (N_Y, N_X, 4)))
    np.testing.assert_array_equal(read.kspace, volume * read.mask)
    with pytest.raises(FileError, match="is three-dimensional, with 4 partitions"):
        convert_kspace(file, tmp_path / "b.h5", "fastmri")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_directions_that_are_no_rotation_give_no_geometry(tmp_path: Path) -> None:
    path = write_mrd(tmp_path / "a.h5", lines_of(KSPACE, range(N_X), head={"read_dir": (0, 0, 0)}))
    file = IsmrmrdFile(path)
    assert file.read_slice(0).geometry is None
    assert any("directions" in line for line in file.notes)


# What is wrong is named


def broken(
    number: int, head: dict[str, object] | None = None, n_floats: int | None = None, **idx: int
) -> list[RawLine]:
    lines = lines_of(KSPACE, range(N_X))
    lines[number].head = head or {}
    lines[number].idx = {**lines[number].idx, **idx}
    lines[number].n_floats = n_floats
    return lines


NAN = KSPACE.copy()
NAN[1, 2, 3] = np.nan
BAD = [
    (
        broken(5, kspace_encode_step_1=3),
        "kspace_encode_step_1: acquisition 5: line 3 of this image was acquired before, by acquisition 3",
    ),
    (broken(5, kspace_encode_step_1=12), "kspace_encode_step_1: acquisition 5: is 12, the header says 0 to 11"),
    (broken(5, slice=2), "slice: acquisition 5: is 2, the header says 0 to 0"),
    (broken(5, {"flags": 1 << 21}), "flags: acquisition 5: is a line that was read backwards (EPI)"),
    (broken(5, {"flags": 1 << 53}), "flags: acquisition 5: its samples are compressed (flag 54)"),
    (broken(5, {"trajectory_dimensions": 2}), "trajectory_dimensions: acquisition 5: has a trajectory"),
    (broken(5, {"number_of_samples": 8}), "number_of_samples: acquisition 5: is 8, but 16"),
    (broken(5, {"active_channels": 2}), "active_channels: acquisition 5: is 2, but 3"),
    (broken(0, {"active_channels": 0}), "active_channels: acquisition 0: is 0"),
    (broken(0, {"number_of_samples": 0}), "number_of_samples: acquisition 0: is 0"),
    (
        broken(5, {"center_sample": 7}),
        "center_sample: acquisition 5: 16 samples around sample 7 do not fit into 16 rows",
    ),
    (broken(5, {"discard_pre": 9, "discard_post": 9}), "center_sample: acquisition 5"),
    (broken(5, n_floats=90), "data: acquisition 5: has 90 numbers, the head says 3 channels of 16 samples: 96"),
    (lines_of(NAN, range(N_X)), "data: acquisition 3: has NaN or infinite samples"),
    (lines_of(KSPACE, range(N_X), head={"flags": NOISE}), "has no imaging readouts: 12 noise"),
    (
        lines_of(KSPACE, range(N_X), head={"encoding_space_ref": 1}),
        "has no imaging readouts: 12 of other encoding spaces",
    ),
    ([], "data: has 0 acquisitions"),
    (lines_of(0 * KSPACE, range(N_X)), "kspace: every sample is zero"),
    (lines_of(KSPACE[:2], range(N_X)), "receiverChannels: the header says 3, the acquisitions have 2"),
]


@pytest.mark.parametrize(("lines", "message"), BAD, ids=[message.partition(" is ")[0][:60] for _, message in BAD])
def test_bad_acquisitions(tmp_path: Path, lines: list[RawLine], message: str) -> None:
    path = write_mrd(tmp_path / "a.h5", lines, header(counter_limits={"slice": (0, 0, 0)}))
    with pytest.raises(FileError) as caught, IsmrmrdFile(path) as file:
        file.read_slice(0)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectory": "radial"}, "trajectory: is radial; only Cartesian is supported"),
        ({"trajectory": "epi"}, "trajectory: is epi"),
        ({"line_limits": None}, "kspace_encode_step_1: is missing: the line of the k-space centre is unknown"),
        ({"encoded_matrix": (N_Y, N_X, 4)}, "kspace_encode_step_2: is missing"),
        ({"encoded_matrix": (N_Y, 8, 1)}, "kspace_encode_step_1: acquisition 0: 0 is index -2 of 8"),
        ({"encoded_matrix": (65536, 65536, 9), "partition_limits": (0, 8, 4)}, "GiB for one image"),
    ],
)
def test_bad_headers(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_mrd(tmp_path / "a.h5", lines_of(KSPACE, range(N_X)), header(**changes))
    with pytest.raises(FileError) as caught:
        IsmrmrdFile(path)
    assert message in str(caught.value)


def test_missing_lines_are_no_error_but_unacquired(tmp_path: Path) -> None:
    record = IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines_of(KSPACE, [2, 6, 7]))).read_slice(0)
    assert record.mask is not None
    np.testing.assert_array_equal(np.flatnonzero(record.mask), [2, 6, 7])


def test_counters_that_the_header_announces_but_the_file_lacks_are_noted(tmp_path: Path) -> None:
    head = header(counter_limits={"slice": (0, 9, 0)})
    assert (
        "slice: the header says 0 to 9, the file has 1 of them"
        in IsmrmrdFile(write_mrd(tmp_path / "a.h5", lines_of(KSPACE, range(N_X)), head)).notes
    )


def test_other_hdf5(tmp_path: Path) -> None:
    path = write_mrd(tmp_path / "a.h5", lines_of(KSPACE, range(N_X)))
    with h5py.File(path, "r+") as file:
        del file["dataset/data"]
        file["dataset/data"] = np.zeros(3)
    with pytest.raises(FileError, match="dataset/data: expected records with head"):
        open_kspace(path)
    path = write_mrd(tmp_path / "b.h5", lines_of(KSPACE, range(N_X)))
    with h5py.File(path, "r+") as file:
        file.copy("dataset", "second")
    with pytest.raises(FileError, match="group: expected one group with acquisitions"):
        open_kspace(path)
    assert IsmrmrdFile(path, group="second").n_slices == 1
    with h5py.File(path, "r+") as file:
        del file["second"], file["dataset/xml"]
        file["dataset/xml"] = h5py.ExternalLink("other.h5", "xml")
    with pytest.raises(FileError, match="is a link"):
        open_kspace(path)


def test_real_phantom(shared_data: Path) -> None:
    with open_kspace(shared_data / "raw" / "ismrmrd_skyra_14ch_R3_phantom.h5") as file:
        record = file.read_slice(0)
    assert (record.n_coils, record.shape, record.recon_shape) == (14, (384, 144), (192, 144))
    assert record.readout_oversampling == 2
    assert record.mask is not None
    columns = np.flatnonzero(record.mask)
    assert (columns[0], columns[-1], len(columns)) == (18, 123, 68)
    assert record.mask[48:96].all()  # 48 embedded calibration lines around the centre, column 72
    energy = np.abs(record.kspace).sum(axis=0)
    assert np.unravel_index(energy.argmax(), energy.shape) == (192, 72)
    assert record.noise_scan is not None
    # the outermost lines are mostly noise: the scaled noise scan has no more than their standard deviation, and not much less
    ratio = record.noise_scan.std(axis=1) / record.kspace[:, :20][:, :, columns[[0, 1, -2, -1]]].std(axis=(1, 2))
    assert 0.6 < np.median(ratio) < 1.05
    assert file.notes == ("readouts: 20 imaging, 32 calibration, 16 calibration and imaging, 1 noise",)


def test_written_by_the_cpp_library(tmp_path: Path) -> None:
    program = shutil.which("ismrmrd_generate_cartesian_shepp_logan")
    if program is None:
        pytest.skip("the ISMRMRD C++ tools (Debian: ismrmrd-tools) are not on this machine")
    path = tmp_path / "cpp.h5"
    subprocess.run(
        [program, "-m32", "-c4", "-a2", "-w8", "-n0", "-o", str(path)], check=True, capture_output=True, timeout=60
    )
    with open_kspace(path) as file:
        assert (file.n_slices, file.n_coils, file.shape, file.recon_shape) == (2, 4, (64, 32), (32, 32))
        masks = [record.mask for record in file.slices()]
        assert masks[0] is not None
        assert masks[1] is not None
        assert (masks[0] | masks[1]).all()
        assert (masks[0] & masks[1]).sum() == 8  # the calibration lines
        record = file.read_slice(0)
        assert record.geometry is None
        energy = np.abs(record.kspace).sum(axis=0)
        assert np.unravel_index(energy.argmax(), energy.shape) == (32, 16)
