import errno
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrisps.errors import FileError
from mrisps.io import hdf5_writer
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.hdf5_writer import Hdf5Writer

SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_round_trip_in_parts(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 5, 6)).astype(np.float32)
    with Hdf5Writer(tmp_path / "a.h5") as file:
        file.create("x", values.shape, values.dtype)
        for index in (2, 0, 3, 1):
            file.write_part("x", index, values[index])
        file.write("text", b"<xml/>")
        file.set_attributes({"a": 1, "b": 2.5, "c": "µ", "d": True, "long": "x" * 200_000})
    with Hdf5Reader(tmp_path / "a.h5") as read:
        np.testing.assert_array_equal(read.read("x"), values)
        np.testing.assert_array_equal(read.read("x", 2), values[2])
        assert read.attributes() == ({"a": 1, "b": 2.5, "c": "µ", "d": True, "long": "x" * 200_000}, ())
        assert read.layout() == {"text": ((), "text"), "x": ((4, 5, 6), "float32")}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_exception_leaves_the_earlier_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    with pytest.raises(type(error)), Hdf5Writer(path) as file:  # noqa: PT012 - what fails is leaving the block
        file.write("x", np.zeros(1000))
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_ctrl_c_inside_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    sink_try = hdf5_writer._Sink._try

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Hdf5Writer(path) as file:  # noqa: PT012 - what fails is leaving the block
        monkeypatch.setattr(hdf5_writer._Sink, "_try", lambda self, action: sink_try(self, interrupted))
        file.write("x", np.zeros(100_000))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("limit", [1, 3000, 100_000])  # at the very start, in the metadata, in the data
def test_full_disk(tmp_path: Path, small_disk: SmallDisk, limit: int) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    with small_disk(limit), pytest.raises(FileError, match=r"a\.h5: cannot be written: File too large"):  # noqa: PT012, SIM117 - what fails is leaving the block
        with Hdf5Writer(path) as file:
            file.create("x", (50, 1000), np.dtype(np.float64))
            for index in range(50):
                file.write_part("x", index, np.ones(1000))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_full_disk_found_at_the_end(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(50_000), pytest.raises(FileError, match="cannot be written"), Hdf5Writer(tmp_path / "a.h5") as file:
        file.set_attributes({"long": "x" * 60_000})  # still in HDF5's cache: written when the file is closed
    assert not list(tmp_path.iterdir())


def test_no_space_left() -> None:
    with hdf5_writer._Sink("/dev/full", "r+") as sink:
        with h5py.File(sink, "w") as file:
            file["x"] = np.ones(100_000)
        with pytest.raises(OSError, match="No space left") as caught:
            sink.check()
    assert caught.value.errno == errno.ENOSPC


def test_full_disk_does_not_crash_the_process(tmp_path: Path) -> None:
    # With HDF5's own file driver this ends with a segmentation fault.
    program = """
import resource, sys, numpy
from mrisps.errors import FileError
from mrisps.io.hdf5_writer import Hdf5Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with Hdf5Writer(sys.argv[1]) as file:
        file.write("x", numpy.ones((10, 100, 100), numpy.float32))
except FileError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.h5"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path / 'a.h5'}: cannot be written: File too large"
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_or_no_hdf5(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        Hdf5Reader(tmp_path / "a.h5")
    with pytest.raises(FileError, match="is not a regular file"):
        Hdf5Reader(tmp_path)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        Hdf5Reader(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"\x89PNG" * 1000)
    with pytest.raises(FileError, match="is not an HDF5 file"):
        Hdf5Reader(tmp_path / "a.h5")


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((2, 3))
    (tmp_path / "secret.raw").write_bytes(np.ones((2, 3)).tobytes())
    layout = h5py.VirtualLayout(shape=(2, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", shape=(2, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "x")
        file.create_dataset("external", (2, 3), "f8", external=[(str(tmp_path / "secret.raw"), 0, 48)])
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
        file["soft"] = h5py.SoftLink("/nowhere")
        file["null"] = h5py.Empty("f4")
    with Hdf5Reader(tmp_path / "a.h5") as read:
        for name in ("link", "external", "virtual"):
            with pytest.raises(FileError, match=f"{name}: is .* another file, which is not followed"):
                read.read(name)
        with pytest.raises(FileError, match="group: is not a data set"):
            read.read("group")
        with pytest.raises(FileError, match="soft: is a link"):
            read.read("soft")
        with pytest.raises(FileError, match="null: is empty"):
            read.read("null")
        with pytest.raises(FileError, match="absent: is missing; the file has: external, group, link, null"):
            read.read("absent")
        assert read.layout().keys() == {"external", "virtual", "null"}


def test_a_claimed_size_is_not_allocated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10**6, 10**6, 10**6), "f4", chunks=(1, 100, 100))
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with Hdf5Reader(tmp_path / "a.h5") as read, pytest.raises(FileError, match=r"x: 3725\.3 GiB in one piece"):
        read.read("x", 0)


def test_damaged_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=np.arange(10_000.0), chunks=(10_000,), compression="gzip")
        offset = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 100] = bytes(100)
    path.write_bytes(content)
    with Hdf5Reader(path) as read, pytest.raises(FileError, match="x: cannot be read"):
        read.read("x")


def test_attributes_of_other_kinds_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["array"] = np.arange(3)
        file.attrs["one"] = np.array([2.5])
        file.attrs["bytes"] = np.bytes_(b"abc")
        file.attrs["empty"] = h5py.Empty("f4")
    with Hdf5Reader(tmp_path / "a.h5") as read:
        assert read.attributes() == ({"one": 2.5, "bytes": "abc"}, ("array", "empty"))


def test_writer_outside_of_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not open"):
        Hdf5Writer(tmp_path / "a.h5").write("x", np.zeros(1))


@pytest.mark.parametrize("options", [{"chunks": (5,)}, {"chunks": (5,), "compression": "gzip"}, {}])
def test_a_member_of_records(tmp_path: Path, options: dict[str, object]) -> None:
    records = np.zeros(13, [("head", [("a", "<u2"), ("b", "<f4", (2,))]), ("data", h5py.vlen_dtype(np.float32))])
    records["head"]["a"] = np.arange(13)
    for index in range(13):
        records["data"][index] = np.full(index, index, np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/x", data=records, **options)
    with Hdf5Reader(tmp_path / "a.h5") as read:
        np.testing.assert_array_equal(read.read_record_member("group/x", "head")["a"], np.arange(13))
        some = read.read_records("group/x", slice(2, 12, 4))
        assert [part.tolist() for part in some["data"]] == [[2.0] * 2, [6.0] * 6, [10.0] * 10]
        with pytest.raises(FileError, match="group/x/data: expected a member of fixed length"):
            read.read_record_member("group/x", "data")
        with pytest.raises(FileError, match="group/x: expected records with tail"):
            read.read_record_member("group/x", "tail")


@pytest.mark.slow
def test_reading_a_member_does_not_keep_the_rest(tmp_path: Path) -> None:
    """The HDF5 library leaks members of variable length that are left out of what is read."""
    records = np.zeros(200, [("head", "<u4"), ("data", h5py.vlen_dtype(np.float32))])
    for index in range(200):
        records["data"][index] = np.zeros(50_000, np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=records, chunks=(10,))
    program = """
import sys
from mrisps.io.hdf5 import Hdf5Reader
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with Hdf5Reader(sys.argv[1]) as file:
    file.read_record_member("x", "head")
    before = resident()
    for _ in range(10):
        file.read_record_member("x", "head")
        file.read_records("x", slice(0, 100))
    print(resident() - before)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "a.h5")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 100e6  # one pass of a leak would be 40 MB
