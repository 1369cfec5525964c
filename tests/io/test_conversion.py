"""From one k-space format to another."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import CALIBRATION, N_COILS, N_X, N_Y, NOISE, RawLine, header, lines_of, normal, write_mrd

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.conversion import KSPACE_FORMATS, KspaceFormat, convert_kspace
from mrisps.io.fastmri import FastmriFile, write_fastmri, write_kspace
from mrisps.io.files import sha256_of
from mrisps.io.open import open_kspace

KSPACE = normal((3, N_COILS, N_Y, N_X))
MASK = np.isin(np.arange(N_X), (0, 2, 5, 6, 7, 9))


def undersampled(mask: np.ndarray) -> np.ndarray:
    """Without the negative zeros that multiplying by a mask makes: a file says nothing of what was not acquired."""
    return np.where(mask, KSPACE, np.complex64(0))


@pytest.fixture
def knee(tmp_path: Path) -> Path:
    path = tmp_path / "knee.h5"
    target = np.ones((3, 8, 8), np.float32)
    write_kspace(
        path,
        undersampled(MASK),
        mask=MASK,
        target=target,
        contrast="CORPD",
        header=header(),
        image_is_real=True,
        attributes={"patient_id": "7", "x": 2.5},
    )
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Noise, a reference scan, two slices with their places."""
    lines = [RawLine(normal((N_COILS, 20), 9), {"flags": NOISE, "sample_time_us": 8.0})]
    for index in range(2):
        place = {"position": (0, 0, 5 * index)}
        lines += lines_of(KSPACE[index], [5, 6, 7], slice=index, head={"flags": CALIBRATION, **place})
        lines += lines_of(KSPACE[index], np.flatnonzero(MASK).tolist(), slice=index, head=place)
    head = header(
        acceleration=(2, 1), calibration_mode="separate", relative_receiver_noise_bandwidth=0.8, patient_id="7"
    )
    return write_mrd(tmp_path / "raw.h5", lines, head)


def convert(source: Path, destination: Path, to: KspaceFormat) -> tuple[str, ...]:
    with open_kspace(source) as file:
        return convert_kspace(file, destination, to)


def slices(path: Path) -> list[Acquisition]:
    with open_kspace(path) as file:
        return list(file.slices())


def test_fastmri_to_mrd_and_back_bit_for_bit(knee: Path, tmp_path: Path) -> None:
    lost = convert(knee, tmp_path / "a.mrd", "mrd")
    assert lost == ("target: the reference images",)
    assert convert(tmp_path / "a.mrd", tmp_path / "b.h5", "fastmri") == ()
    before, after = slices(knee), slices(tmp_path / "b.h5")
    assert len(before) == len(after) == 3
    for a, b in zip(before, after, strict=True):
        assert a.kspace.tobytes() == b.kspace.tobytes()
        np.testing.assert_array_equal(a.full_mask(), b.full_mask())
        assert (a.contrast, a.recon_shape, a.image_is_real) == (b.contrast, b.recon_shape, b.image_is_real)
        for name in ("patient_id", "x", "max", "norm"):
            assert a.attributes[name] == b.attributes[name]
    provenance = json.loads(str(after[0].attributes["provenance"]))
    assert provenance["input"] == {"format": "ISMRMRD", "name": "a.mrd", "sha256": sha256_of(tmp_path / "a.mrd")}


def test_cfl_to_mrd_and_back_bit_for_bit(knee: Path, tmp_path: Path) -> None:
    convert(knee, tmp_path / "a.cfl", "cfl")
    convert(tmp_path / "a.cfl", tmp_path / "b.mrd", "mrd")
    convert(tmp_path / "b.mrd", tmp_path / "c.cfl", "cfl")
    assert (tmp_path / "a.cfl").read_bytes() == (tmp_path / "c.cfl").read_bytes()
    assert (tmp_path / "a.hdr").read_text().splitlines()[:2] == (tmp_path / "c.hdr").read_text().splitlines()[:2]


def test_mrd_to_mrd_keeps_everything(raw: Path, tmp_path: Path) -> None:
    assert convert(raw, tmp_path / "a.mrd", "mrd") == ()
    for a, b in zip(slices(raw), slices(tmp_path / "a.mrd"), strict=True):
        assert a.kspace.tobytes() == b.kspace.tobytes()
        assert a.calibration is not None
        assert b.calibration is not None
        np.testing.assert_array_equal(a.calibration, b.calibration)
        assert a.noise_scan is not None
        assert b.noise_scan is not None
        np.testing.assert_allclose(a.noise_scan, b.noise_scan, rtol=1e-6)
        assert a.geometry == b.geometry
        assert dict(a.labels) == dict(b.labels)
        assert b.attributes["patient_id"] == "7"
        assert b.attributes["sample_time_us"] == 5


@pytest.mark.parametrize("to", KSPACE_FORMATS)
def test_every_format_has_the_samples_and_says_what_it_lacks(raw: Path, tmp_path: Path, to: KspaceFormat) -> None:
    path = tmp_path / f"out{KSPACE_FORMATS[to]}"
    names = {line.split(":")[0] for line in convert(raw, path, to)}
    bare = {"mask", "contrast", "attributes", "recon_shape", "readout_oversampling"} - {"contrast"}
    apart = {"calibration", "noise_scan", "geometry"}
    assert names == {"fastmri": apart, "mrd": set(), "cfl": apart | bare, "npy": apart | bare}[to]
    for a, b in zip(slices(raw), slices(path), strict=True):
        np.testing.assert_array_equal(a.kspace, b.kspace)


def test_partial_readouts_and_lines_outside_the_header(tmp_path: Path) -> None:
    """Rows 3 to 15 only: shorter acquisitions, with the centre where it was."""
    mask = np.zeros((N_Y, N_X), np.bool_)
    mask[3:, 2:] = True
    write_kspace(tmp_path / "a.h5", undersampled(mask), mask=mask, header=header(line_limits=(0, 5, 3)))
    assert convert(tmp_path / "a.h5", tmp_path / "b.mrd", "mrd") == ()
    with h5py.File(tmp_path / "b.mrd") as file:
        head = file["dataset/data"].fields("head")[:]
        assert set(head["number_of_samples"]) == {N_Y - 3}
        assert set(head["idx"]["kspace_encode_step_1"]) == set(range(2, N_X))  # the limits had no room for them
    for a, b in zip(slices(tmp_path / "a.h5"), slices(tmp_path / "b.mrd"), strict=True):
        assert a.kspace.tobytes() == b.kspace.tobytes()
        np.testing.assert_array_equal(b.full_mask(), mask)


def test_masks_that_a_format_cannot_carry(tmp_path: Path) -> None:
    scattered = normal((N_Y, N_X)).real > 0
    write_kspace(tmp_path / "a.h5", undersampled(scattered), mask=scattered)
    (lost,) = convert(tmp_path / "a.h5", tmp_path / "b.mrd", "mrd")
    assert lost.startswith("mask: of single samples")
    assert slices(tmp_path / "b.mrd")[2].kspace.tobytes() == undersampled(scattered)[2].tobytes()
    lines = lines_of(KSPACE[0], [0, 6]) + lines_of(KSPACE[0], [1, 6], repetition=1)
    lost = "\n".join(convert(write_mrd(tmp_path / "c.h5", lines), tmp_path / "d.h5", "fastmri"))
    assert "mask: the slices have different ones" in lost
    with FastmriFile(tmp_path / "d.h5") as file:
        assert file.mask is None


def test_the_header_keeps_what_we_do_not_use(raw: Path, tmp_path: Path) -> None:
    with h5py.File(raw, "r+") as file:
        text = file["dataset/xml"][0].replace(b"<experimentalConditions>", b"<experimentalConditions><!-- c -->")
        text = text.replace(
            b"</ismrmrdHeader>", b"<sequenceParameters><TR>219.6</TR></sequenceParameters></ismrmrdHeader>"
        )
        file["dataset/xml"][0] = text
    convert(raw, tmp_path / "a.mrd", "mrd")
    with open_kspace(tmp_path / "a.mrd") as file:
        assert file.header_xml is not None
        root = ElementTree.fromstring(file.header_xml)
    names = [element.tag.rpartition("}")[2] for element in root]
    order = [
        "subjectInformation",
        "acquisitionSystemInformation",
        "experimentalConditions",
        "encoding",
        "sequenceParameters",
        "userParameters",
    ]
    assert names == order
    assert root.findtext(".//{*}TR") == "219.6"
    from ismrmrd import xsd

    assert xsd.CreateFromDocument(file.header_xml).encoding[0].parallelImaging.calibrationMode.value == "separate"


def test_the_cpp_library_reads_it(raw: Path, knee: Path, tmp_path: Path) -> None:
    program = shutil.which("ismrmrd_recon_cartesian_2d")
    if program is None:
        pytest.skip("the ISMRMRD C++ tools (Debian: ismrmrd-tools) are not on this machine")
    for source in (raw, knee):
        path = tmp_path / f"{source.stem}.mrd"
        convert(source, path, "mrd")
        done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert f"Number of Channels          : {N_COILS}" in done.stdout
        with h5py.File(path) as file:  # what the program wrote into it
            assert file["dataset/cpp/data"].shape == (1, 1, 1, N_X, N_Y // 2)
            assert np.isfinite(file["dataset/cpp/data"][...]).all()


def test_the_input_is_never_overwritten(knee: Path) -> None:
    content = knee.read_bytes()
    with pytest.raises(FileError, match=r"knee\.h5: is the input"):
        convert(knee, knee, "fastmri")
    assert knee.read_bytes() == content


@pytest.mark.parametrize("to", KSPACE_FORMATS)
def test_a_failure_leaves_nothing(tmp_path: Path, to: KspaceFormat) -> None:
    kspace = KSPACE.copy()
    kspace[2, 0, 0, 0] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace
    with pytest.raises(FileError, match="kspace: 1 of 576 samples are NaN or infinite"):
        convert(tmp_path / "a.h5", tmp_path / f"b{KSPACE_FORMATS[to]}", to)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_slices_of_one_shape_and_of_the_number_that_was_said(tmp_path: Path) -> None:
    record = Acquisition(KSPACE[0], tmp_path, 0, 2)
    with pytest.raises(ValueError, match="slices: expected 2, 1 were written"):
        write_fastmri(tmp_path / "a.h5", [record], b"")
    other = Acquisition(KSPACE[0, :, :8], tmp_path, 1, 2)
    with pytest.raises(ValueError, match="slice 1 of 2: expected"):
        write_fastmri(tmp_path / "a.h5", [record, other], b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source_format", "to"), [("fastmri", "mrd"), ("mrd", "cfl"), ("cfl", "npy"), ("cfl", "fastmri")]
)
def test_a_file_larger_than_the_memory_it_takes(tmp_path: Path, source_format: KspaceFormat, to: KspaceFormat) -> None:
    """200 MB in slices of 8 MB: the peak may exceed that of a file of two slices by 80 MB."""
    program = """
import sys
from mrisps.io.conversion import convert_kspace
from mrisps.io.open import open_kspace
with open_kspace(sys.argv[1]) as file:
    convert_kspace(file, sys.argv[2], sys.argv[3])
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))  # of this program alone, in kB
"""
    peaks = []
    for n_slices in (2, 25):
        source = tmp_path / f"{n_slices}.h5"
        kspace = normal((16, 256, 256))
        records = (Acquisition(kspace, source, index, n_slices) for index in range(n_slices))
        write_fastmri(source, records, header(encoded_matrix=(256, 256, 1), line_limits=(0, 255, 128)).to_xml())
        if source_format != "fastmri":
            convert(source, source.with_suffix(KSPACE_FORMATS[source_format]), source_format)
            source = source.with_suffix(KSPACE_FORMATS[source_format])
        arguments = [
            sys.executable,
            "-c",
            program,
            str(source),
            str(tmp_path / f"out{n_slices}{KSPACE_FORMATS[to]}"),
            to,
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 80_000, peaks
