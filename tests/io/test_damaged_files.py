"""Damaged files: every reader ends with a FileError or reads a record that holds together; nothing else, and not for ever."""

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import CALIBRATION, N_X, NOISE, RawLine, header, lines_of, normal, write_dicom, write_mrd, write_twix
from result_files import write_result
from scipy.io import savemat

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.arrays import ArrayLayout, variables_of
from mrisps.io.bart import write_cfl
from mrisps.io.fastmri import write_kspace
from mrisps.io.image_volume import ImageVolume
from mrisps.io.nifti import nifti_header, write_nifti
from mrisps.io.open import open_kspace
from mrisps.io.result_file import ResultFile

KSPACE = normal((2, 3, 16, 12))  # (slice, coil, y, x)
SECONDS = 20


def fastmri(folder: Path) -> Path:
    mask = np.arange(12) % 2 == 0
    kspace = np.where(mask, KSPACE, np.complex64(0))
    write_kspace(folder / "a.h5", kspace, mask=mask, target=np.ones((2, 8, 8), np.float32), header=header())
    return folder / "a.h5"


def mrd(folder: Path) -> Path:
    lines = [RawLine(normal((3, 20)), {"flags": NOISE}), *lines_of(KSPACE[0], [5, 6], head={"flags": CALIBRATION})]
    for index in range(2):
        lines += lines_of(KSPACE[index], range(N_X), slice=index)
    return write_mrd(folder / "a.mrd", lines)


def twix(folder: Path) -> Path:
    pytest.importorskip("twixtools")
    return write_twix(folder / "a.dat", KSPACE[0], flags={0: ("NOISEADJSCAN",)})


def twix_vb(folder: Path) -> Path:
    pytest.importorskip("twixtools")
    return write_twix(folder / "a.dat", KSPACE[0], is_vb=True)


def cfl(folder: Path) -> Path:
    write_cfl(folder / "a.cfl", (Acquisition(KSPACE[index], folder, index, 2) for index in range(2)))
    return folder / "a.cfl"


def hdr(folder: Path) -> Path:
    return cfl(folder).with_suffix(".hdr")


def npy(folder: Path) -> Path:
    np.save(folder / "a.npy", KSPACE)
    return folder / "a.npy"


def npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", k=KSPACE)
    return folder / "a.npz"


def mat(folder: Path) -> Path:
    savemat(folder / "a.mat", {"k": KSPACE}, do_compression=True)
    return folder / "a.mat"


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker for maker in (fastmri, mrd, twix, twix_vb, cfl, hdr, npy, npz, mat)
}

# Where (a fraction of the file, or near one of its ends, where headers are), how many bytes, and what becomes of them.
PLACE = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.95, 1))
BYTES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\x00", b"\xff", b"\xff" * 4, b"\x00" * 8, b"\xff" * 8, b"9" * 6, b"-1"]),
)
MUTATION = st.tuples(st.sampled_from(["replace", "insert", "delete", "truncate"]), PLACE, BYTES)
MUTATIONS = st.lists(MUTATION, min_size=1, max_size=4)


def mutated(content: bytes, mutations: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, values in mutations:
        at = min(int(place * len(content)), max(0, len(content) - 1))
        rest = {"replace": content[at + len(values) :], "insert": content[at:], "delete": content[at + len(values) :]}
        content = content[:at] + (b"" if kind in ("delete", "truncate") else values) + rest.get(kind, b"")
    return content


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path) -> None:
    """Read the whole file; what is read has the shape that the file states."""
    layout = ArrayLayout.parse("slice,coil,y,x") if path.suffix in (".npy", ".npz", ".mat") else None
    with in_time(), contextlib.suppress(FileError), open_kspace(path, layout) as file:
        for index in range(min(file.n_slices, 4)):
            record = file.read_slice(index)
            assert record.kspace.shape == (file.n_coils, *file.shape)
            assert np.isfinite(record.kspace).all()
    if layout is not None:
        with in_time(), contextlib.suppress(FileError):
            assert all(isinstance(dtype, str) for _, dtype in variables_of(path).values())


def check(name: str, mutations: list[tuple[str, float, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = MAKERS[name](Path(folder))
        path.write_bytes(mutated(path.read_bytes(), mutations))
        read(path)


QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.mark.parametrize("name", MAKERS)
def test_undamaged(name: str, tmp_path: Path) -> None:
    layout = ArrayLayout.parse("slice,coil,y,x") if name in ("npy", "npz", "mat") else None
    with open_kspace(MAKERS[name](tmp_path), layout) as file:
        expected = normal((2, 3, 16, 12))[0]
        got = file.read_slice(0).kspace
        assert np.array_equal(got[got != 0], expected[got != 0])


@pytest.mark.parametrize("name", MAKERS)
@settings(QUIET, max_examples=25)
@given(mutations=MUTATIONS)
def test_damaged(name: str, mutations: list[tuple[str, float, bytes]]) -> None:
    check(name, mutations)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
@settings(QUIET, max_examples=200)
@given(mutations=MUTATIONS)
def test_damaged_in_many_ways(name: str, mutations: list[tuple[str, float, bytes]]) -> None:
    check(name, mutations)


@settings(QUIET, max_examples=25)
@given(mutations=MUTATIONS)
def test_damaged_results(mutations: list[tuple[str, float, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        write_result(path, np.ones((2, 8, 6), np.complex64), certificates=[{"status": "converged"}] * 2, provenance={})
        path.write_bytes(mutated(path.read_bytes(), mutations))
        with in_time(), contextlib.suppress(FileError), ResultFile(path) as file:
            assert np.isfinite(file.volume().pixels).all()
            assert len(file.certificates) in (0, file.n_slices)


@settings(QUIET, max_examples=25)
@given(mutations=MUTATIONS, suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_damaged_nifti_headers(mutations: list[tuple[str, float, bytes]], suffix: str) -> None:
    pytest.importorskip("nibabel")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_nifti(path, ImageVolume(np.ones((2, 8, 6), np.float32), (None, None), path))
        path.write_bytes(mutated(path.read_bytes(), mutations))
        with in_time(), contextlib.suppress(FileError):
            assert len(nifti_header(path).shape) > 0


def check_dicom(mutations: list[tuple[str, float, bytes]]) -> None:
    from mrisps.io.dicom import read_dicom_series

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        write_dicom(path, 0)
        path.write_bytes(mutated(path.read_bytes(), mutations))
        with in_time(), contextlib.suppress(FileError):
            assert np.isfinite(read_dicom_series(path).pixels).all()


@settings(QUIET, max_examples=25)
@given(mutations=MUTATIONS)
def test_damaged_dicom(mutations: list[tuple[str, float, bytes]]) -> None:
    pytest.importorskip("pydicom")
    check_dicom(mutations)


@pytest.mark.slow
@settings(QUIET, max_examples=200)
@given(mutations=MUTATIONS)
def test_damaged_dicom_in_many_ways(mutations: list[tuple[str, float, bytes]]) -> None:
    pytest.importorskip("pydicom")
    check_dicom(mutations)


HEAD_FIELDS = {
    **dict.fromkeys(("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"), 1 << 16),
    **dict.fromkeys(("encoding_space_ref", "trajectory_dimensions", "version"), 1 << 16),
    "flags": 1 << 63,
}
COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)
CHANGED_HEAD = st.sampled_from(sorted(HEAD_FIELDS)).flatmap(
    lambda name: st.tuples(st.just(name), st.one_of(st.integers(0, 20), st.integers(0, HEAD_FIELDS[name] - 1)))
)
CHANGED_COUNT = st.tuples(st.sampled_from(COUNTERS), st.one_of(st.integers(0, 12), st.integers(0, (1 << 16) - 1)))
CHANGED_TIME = st.tuples(st.sampled_from(["sample_time_us", "position", "read_dir"]), st.floats(width=32))
CHANGES = st.lists(
    st.tuples(st.integers(0, 24), st.one_of(CHANGED_HEAD, CHANGED_COUNT, CHANGED_TIME), st.integers(-3, 3)),
    min_size=1,
    max_size=3,
)


def check_heads(changes: list[tuple[int, tuple[str, float], int]]) -> None:
    """Heads that contradict the samples, the header or each other: random bytes seldom hit them."""
    lines = [RawLine(normal((3, 20)), {"flags": NOISE})]
    for index in range(2):
        lines += lines_of(KSPACE[index], range(N_X), slice=index)
    for number, (name, value), more in changes:
        line = lines[number]
        if name in COUNTERS:
            line.idx = {**line.idx, name: int(value)}
        else:
            line.head = {**line.head, name: value}
        line.n_floats = line.samples.size * 2 + more if number % 3 == 0 else None
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        read(write_mrd(Path(folder) / "a.mrd", lines))


@settings(QUIET, max_examples=40)
@given(changes=CHANGES)
def test_contradictory_acquisitions(changes: list[tuple[int, tuple[str, float], int]]) -> None:
    check_heads(changes)


@pytest.mark.slow
@settings(QUIET, max_examples=200)
@given(changes=CHANGES)
def test_contradictory_acquisitions_in_many_ways(changes: list[tuple[int, tuple[str, float], int]]) -> None:
    check_heads(changes)
