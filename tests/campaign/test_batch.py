"""What a batch does, does not do again, and survives."""

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pytest
from batch_files import (
    COLUMNS,
    RECIPE,
    Quiet,
    data_sets,
    ledger_path,
    made,
    make_job,
    partial_files,
    run,
    small_model,
    write_input,
    write_inputs,
)
from manifests import manifest_of

from mrisps.campaign import batch_work as module
from mrisps.campaign.batch import open_ledger, remove_partial_files
from mrisps.campaign.batch_item import Entry, Item, Job
from mrisps.campaign.batch_work import peak_memory
from mrisps.campaign.sources import SourceFile, WatchedFolder, sources_of
from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.arrays import ArrayLayout
from mrisps.io.fastmri import FastmriFile, write_kspace
from mrisps.io.files import sha256_of
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.open import open_kspace
from mrisps.journal import JournalInUseError
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.slice_result import FileResult
from mrisps.reconstruction.weights import Weights

Disk = Callable[[int], AbstractContextManager[None]]

WRITE = Run.write


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path / "in", 3)
    return tmp_path / "in"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path / "out")


def test_every_file_is_what_recon_makes_of_it(inputs: Path, job: Job, tmp_path: Path) -> None:
    result = run(inputs, job)
    assert made(result) == ["v00.h5", "v01.h5", "v02.h5"]
    assert not result.failed
    for name in made(result):
        Run(RECIPE, Weights("small", small_model())).write(inputs / name, tmp_path / name)
        assert data_sets(job.folder / name) == data_sets(tmp_path / name)
        beside = json.loads((job.folder / name).with_suffix(".json").read_text())
        assert beside["provenance"]["input"]["sha256"] == sha256_of(inputs / name)
        assert beside["provenance"]["recipe"]["sha256"] == RECIPE.sha256()
        assert beside["output"]["sha256"] == sha256_of(job.folder / name)
        assert beside["certificates"][0]["status"] == "converged"
        assert beside["certificates"][0]["image"]["edge_energy"] < 0.1
        assert beside["provenance"]["times"]["seconds"] > 0
        log = (job.folder / "_batch" / "logs" / f"{name}.log").read_text()
        assert "iterations" in log
        assert "done: " in log


def test_what_memory_does_not_hold_is_said_in_the_log(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As all warnings of the package are: in the log of the file, nowhere else."""
    monkeypatch.setattr("mrisps.reconstruction.together.available_memory", lambda device: 1)
    write_inputs(tmp_path / "in", 1, n_slices=2)
    result = run(tmp_path / "in", replace(job, slices_together=2))
    assert made(result) == ["v00.h5"]
    log = (job.folder / "_batch" / "logs" / "v00.h5.log").read_text()
    assert log.count("note: 2 slices in one solve need about") == 1
    assert "are left on cpu: 1 at a time\n" in log
    assert "one solve" not in capfd.readouterr().err


def test_a_job_computes_as_its_run(tmp_path: Path) -> None:
    """What a worker makes of the job that it is sent."""
    run = Run(RECIPE, Weights("small", small_model()), undersample=False, scale=2.0, crop=False, slices_together=3)
    found = pickle.loads(pickle.dumps(Job.of(run, tmp_path / "out"))).run
    for field in ("scale", "crop", "undersample", "mask", "device", "slices_together"):
        assert getattr(found, field) == getattr(run, field), field


def test_nothing_is_done_twice(inputs: Path, job: Job) -> None:
    run(inputs, job)
    again = run(inputs, job)
    assert again.entries == {}
    assert list(again.known) == ["v00.h5", "v01.h5", "v02.h5"]
    assert made(run(inputs, job, redo=True)) == ["v00.h5", "v01.h5", "v02.h5"]


def test_only_what_changed_is_done_again(inputs: Path, job: Job) -> None:
    run(inputs, job)
    write_input(inputs / "v01.h5", 77)
    write_input(inputs / "v03.h5", 3)
    assert made(run(inputs, job)) == ["v01.h5", "v03.h5"]
    other = replace(job, recipe=replace(RECIPE, lam=0.02))
    assert made(run(inputs, other)) == ["v00.h5", "v01.h5", "v02.h5", "v03.h5"]
    assert not run(inputs, other).entries
    weights = replace(make_job(job.folder, other.recipe, small_model(1)))
    assert len(made(run(inputs, weights))) == 4
    assert len(made(run(inputs, replace(weights, crop=False)))) == 4


def test_new_time_with_the_same_content_is_not_a_change(inputs: Path, job: Job) -> None:
    """Size and time are the quick look, the hash is the truth; then the quick look suffices again."""
    run(inputs, job)
    before = data_sets(job.folder / "v00.h5")
    os.utime(inputs / "v00.h5", (1e9, 1e9))
    again = run(inputs, job)
    assert [entry.reused for entry in again.entries.values()] == [True]
    assert len(again.known) == 2
    assert data_sets(job.folder / "v00.h5") == before
    assert not run(inputs, job).entries


def test_clock_that_goes_backwards(inputs: Path, job: Job) -> None:
    """A change counts however old it claims to be, and what was done in the future stays done."""
    for path in inputs.iterdir():
        os.utime(path, (4e9, 4e9))
    run(inputs, job)
    with open_ledger(job.folder) as ledger:
        for name, record in list(ledger.records.items()):
            ledger.append(name, {**record, "finished": "2099-01-01T00:00:00+00:00"})
    assert not run(inputs, job).entries
    write_input(inputs / "v02.h5", 99)
    os.utime(inputs / "v02.h5", (1e6, 1e6))
    assert made(run(inputs, job)) == ["v02.h5"]
    assert not run(inputs, job).entries


def test_lost_and_damaged_outputs_are_made_again(inputs: Path, job: Job) -> None:
    run(inputs, job)
    before = data_sets(job.folder / "v01.h5")
    (job.folder / "v00.h5").unlink()
    (job.folder / "v01.h5").write_bytes((job.folder / "v01.h5").read_bytes()[:5000])
    (job.folder / "v02.json").unlink()
    again = run(inputs, job)
    assert made(again) == ["v00.h5", "v01.h5"]
    assert [name for name, entry in again.entries.items() if entry.reused] == ["v02.h5"]
    assert (job.folder / "v02.json").is_file()
    assert data_sets(job.folder / "v01.h5") == before


def test_killed_between_output_and_ledger(inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output says itself what it was made from: it is taken, not made again."""
    run(inputs, job)
    with open_ledger(job.folder) as ledger:
        ledger.append("v01.h5", Entry("started", str(inputs / "v01.h5")).record())
    (job.folder / "v01.json").unlink()
    monkeypatch.setattr(Run, "write", None)
    again = run(inputs, job)
    assert [(name, entry.reused) for name, entry in again.entries.items()] == [("v01.h5", True)]
    ledger_path(job).unlink()
    assert [entry.reused for entry in run(inputs, job).entries.values()] == [True, True, True]


def test_one_failure_does_not_stop_the_others(inputs: Path, job: Job) -> None:
    (inputs / "a_text.h5").write_text("this is no HDF5")
    (inputs / "b_cut.h5").write_bytes((inputs / "v00.h5").read_bytes()[:3000])
    (inputs / "c_empty.h5").write_bytes(b"")
    result = run(inputs, job)
    assert made(result) == ["v00.h5", "v01.h5", "v02.h5"]
    assert list(result.failed) == ["a_text.h5", "b_cut.h5", "c_empty.h5"]
    assert next(iter(result.failed.values())).error == f"{inputs / 'a_text.h5'}: is not an HDF5 file"
    assert "Traceback" in (job.folder / "_batch/logs/a_text.h5.log").read_text()
    assert not (job.folder / "a_text.h5").exists()
    write_input(inputs / "a_text.h5", 5)
    again = run(inputs, job)
    assert made(again) == ["a_text.h5"]
    assert len(again.failed) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_input(inputs: Path, job: Job) -> None:
    (inputs / "v00.h5").chmod(0)
    result = run(inputs, job)
    assert list(result.failed) == ["v00.h5"]
    assert "Permission denied" in next(iter(result.failed.values())).error


def test_surprises_of_one_file_do_not_stop_the_others(inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Run, source: KspaceFile, *arguments: object, **options: object) -> FileResult:
        if source.path.name == "v01.h5":
            raise RuntimeError("a bug\nin two lines")
        result: FileResult = WRITE(run, source, *arguments, **options)  # type: ignore[arg-type]  # passed on
        return result

    monkeypatch.setattr(Run, "write", broken)
    result = run(inputs, job)
    assert made(result) == ["v00.h5", "v02.h5"]
    assert next(iter(result.failed.values())).error == f"{inputs / 'v01.h5'}: RuntimeError: a bug in two lines"


def test_input_that_changes_while_it_is_read(inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(run: Run, source: KspaceFile, *arguments: object, **options: object) -> FileResult:
        result: FileResult = WRITE(run, source, *arguments, **options)  # type: ignore[arg-type]  # passed on
        if source.path.name == "v01.h5":
            write_input(source.path, 42)
        return result

    monkeypatch.setattr(Run, "write", slow)
    result = run(inputs, job)
    assert "changed while it was being read" in next(iter(result.failed.values())).error
    assert not (job.folder / "v01.h5").exists()
    monkeypatch.undo()
    assert made(run(inputs, job)) == ["v01.h5"]


def test_outputs_of_others_are_not_replaced(inputs: Path, job: Job) -> None:
    (job.folder / "v00.h5").write_text("precious")
    result = run(inputs, job)
    assert list(result.failed) == ["v00.h5"]
    assert "use --overwrite" in next(iter(result.failed.values())).error
    assert (job.folder / "v00.h5").read_text() == "precious"
    # having failed on it does not make it ours
    assert "use --overwrite" in next(iter(run(inputs, job).failed.values())).error
    assert (job.folder / "v00.h5").read_text() == "precious"
    assert made(run(inputs, job, overwrite=True)) == ["v00.h5"]


def test_full_disk(inputs: Path, job: Job, small_disk: Disk) -> None:
    run(sources_of([inputs])[:1], job)
    with small_disk((job.folder / "v00.h5").stat().st_size // 2):
        result = run(inputs, job)
    assert result.disk_full.startswith(f"stopped, the disk is full: {job.folder / 'v01.h5'}: cannot be written")
    assert result.n_left == 1  # v02 was not even tried
    assert len(result.known) == 1
    assert not (job.folder / "v01.h5").exists()
    assert partial_files(job.folder) == []
    assert made(run(inputs, job)) == ["v01.h5", "v02.h5"]


def test_full_disk_when_the_ledger_is_written(inputs: Path, job: Job, small_disk: Disk) -> None:
    with open_ledger(job.folder) as ledger:
        for index in range(500):
            ledger.append(f"other{index}.h5", Entry("failed", "in", error="x" * 200).record(), sync=False)
    with (
        small_disk(ledger_path(job).stat().st_size + 10),
        pytest.raises(FileError, match=r"ledger.jsonl: cannot be written: File too large"),
    ):
        run(inputs, job)
    assert made(run(inputs, job)) == ["v00.h5", "v01.h5", "v02.h5"]


def test_leftovers_of_killed_processes(inputs: Path, job: Job) -> None:
    (job.folder / ".v00.h5.0123abcd.partial").write_text("half")
    (job.folder / "deep").mkdir()
    (job.folder / "deep" / ".v01.h5.0123abcd.partial").write_text("half")
    assert remove_partial_files(job.folder) == 2
    assert partial_files(job.folder) == []


def test_stop_begins_no_more(inputs: Path, job: Job) -> None:
    result = run(inputs, job, listener=Quiet(stop_after=1))
    assert made(result) == ["v00.h5"]
    assert result.n_left == 2
    assert made(run(inputs, job)) == ["v01.h5", "v02.h5"]


def test_clashing_names_are_refused(inputs: Path, job: Job) -> None:
    (inputs / "v00.mrd").write_bytes((inputs / "v00.h5").read_bytes())
    result = run(inputs, job)
    assert made(result) == ["v00.h5", "v01.h5", "v02.h5"]
    assert "would have the output of" in next(iter(result.failed.values())).error
    assert str(inputs / "v00.mrd") in next(iter(result.failed.values())).error


def test_manifest(tmp_path: Path, job: Job) -> None:
    root = tmp_path / "data"
    for split in ("train", "val", "test"):
        write_inputs(root / split, 1)
    manifest = manifest_of(root, lambda path: path.parts[0])
    path = tmp_path / "list.toml"
    manifest.write(path)
    result = run(sources_of([path], root=root), job)
    assert made(result) == ["train/v00.h5", "val/v00.h5"]
    assert (job.folder / "val" / "v00.json").is_file()
    write_input(root / "val" / "v00.h5", 3)
    result = run(sources_of([path], root=root, include_test=True), job)
    assert made(result) == ["test/v00.h5"]
    assert "the manifest says" in next(iter(result.failed.values())).error


def test_watched_folder(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is taken when it has not grown for a while, by a clock that nobody sets."""
    folder = tmp_path / "in"
    write_inputs(folder, 1)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "time", lambda: 1e9 - clock[0])
    watched = WatchedFolder(folder, settle_seconds=5)

    def at(seconds: float) -> list[str]:
        clock[0] = seconds
        return [source.name for source in watched.poll()]

    assert at(0) == []
    assert at(4) == []
    whole = (folder / "v00.h5").read_bytes()
    (folder / "v01.h5").write_bytes(whole[:1000])
    assert at(6) == ["v00.h5"]
    assert at(7) == []
    (folder / "v01.h5").write_bytes(whole)
    os.utime(folder / "v01.h5", (1e6, 1e6))
    assert at(12) == []
    assert at(16) == []
    assert at(18) == ["v01.h5"]
    write_input(folder / "v00.h5", 9)
    assert at(19) == []
    assert at(25) == ["v00.h5"]


def test_watching_batch(inputs: Path, job: Job) -> None:
    result = run([], job, watched=WatchedFolder(inputs, 0), listener=Quiet(stop_after=3))
    assert made(result) == ["v00.h5", "v01.h5", "v02.h5"]
    assert result.n_left == 0


def test_missing_input(job: Job, tmp_path: Path) -> None:
    result = run([SourceFile(tmp_path / "gone.h5", "gone.h5")], job)
    assert "gone.h5: cannot be read: No such file" in next(iter(result.failed.values())).error


def test_mask_options_are_those_of_recon(tmp_path: Path, job: Job) -> None:
    """The mask from zeros is known again; another mask is another output."""
    with FastmriFile(write_input(tmp_path / "stated.h5", 0)) as file:
        kspace = np.stack([record.kspace[0] for record in file.slices()])
    (tmp_path / "in").mkdir()
    write_kspace(tmp_path / "in" / "v00.h5", kspace)
    assert "the file states no mask" in next(iter(run(tmp_path / "in", job).failed.values())).error
    from_zeros = replace(job, mask="from-zeros")
    assert made(run(tmp_path / "in", from_zeros)) == ["v00.h5"]
    mask = np.zeros(24, dtype=np.bool_)
    mask[list(COLUMNS)] = True
    np.save(tmp_path / "mask.npy", mask)
    # the same mask, said in another way: the output is what it would be
    (entry,) = run(tmp_path / "in", replace(job, mask=tmp_path / "mask.npy")).entries.values()
    assert entry.reused
    mask[0] = False
    np.save(tmp_path / "mask.npy", mask)
    assert made(run(tmp_path / "in", replace(job, mask=tmp_path / "mask.npy"))) == ["v00.h5"]


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory()
    block = bytearray(64 << 20)
    block[:: 1 << 12] = b"x" * (len(block) >> 12)  # every page is used
    assert peak_memory() >= before
    assert peak_memory() >= len(block)
    program = "from mrisps.campaign.batch_work import peak_memory; x = bytearray(1); print(peak_memory())"
    assert block
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    block = bytearray(600 << 20)
    block[:: 1 << 12] = b"x" * (len(block) >> 12)
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(again.stdout) < 1.3 * int(child.stdout)  # what the parent has is not counted


def test_full_file_system(inputs: Path, tmp_path: Path) -> None:
    """A real one, where one may be mounted: two volumes fit."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=184k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here")
    try:
        job = make_job(place)
        result = run(inputs, job)
        assert len(made(result)) == 2
        assert "No space left on device" in result.disk_full
        assert partial_files(place) == []
        assert not (place / "v02.h5").exists()
        subprocess.run(["mount", "-o", "remount,size=1m", str(place)], check=True)
        assert made(run(inputs, job)) == ["v02.h5"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_having_no_room(inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_room(output: Path, source: Path) -> Path:
        raise FileError(output, "cannot be written") from OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "write_record_file", no_room)
    result = run(inputs, job)
    assert result.disk_full
    assert result.n_left == 2
    monkeypatch.undo()
    again = run(inputs, job)
    assert [entry.reused for entry in again.entries.values()] == [
        True,
        False,
        False,
    ]  # only the JSON was missing


# ------------------------------------------------------------------------------------------------------------------ the ledger


def test_a_clash_that_comes_later_is_refused(inputs: Path, job: Job) -> None:
    """In a watched folder, too: the file that was first keeps the output."""
    result = run([], job, watched=WatchedFolder(inputs, 0), listener=Quiet(stop_after=3))
    assert not result.failed

    class Late(Quiet):
        def finished(self, item: Item, entry: Entry, /) -> None:
            super().finished(item, entry)
            (inputs / "v00.mrd").write_bytes((inputs / "v01.h5").read_bytes())

    write_input(inputs / "v00.h5", 9)
    (name,) = run([], job, watched=WatchedFolder(inputs, 0), listener=Late(stop_after=2)).failed
    assert name == "v00.h5#.mrd"


def test_outputs_inside_the_input_folder_are_no_inputs(inputs: Path) -> None:
    job = make_job(inputs / "out")
    assert len(made(run(inputs, job))) == 3
    assert not run(inputs, job).entries


def test_other_code_does_it_again(inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other code has made is not taken for what this code would make."""
    run(inputs, job)
    monkeypatch.setattr("mrisps.campaign.loop.software_key", lambda: "another commit")
    assert len(run(inputs, job).entries) == 3


def test_one_batch_at_a_time(inputs: Path, job: Job) -> None:
    with open_ledger(job.folder), pytest.raises(JournalInUseError, match=r"ledger\.jsonl: is in use"):
        run(inputs, job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "lost"}, "ledger.jsonl: the record of v01.h5: state: expected"),
        ({"size": "3"}, "the record of v01.h5: size: expected"),
        ({"seconds": True}, "the record of v01.h5: seconds: expected"),
        ({"more": 1}, "the record of v01.h5: .*more"),
    ],
)
def test_damaged_entries_are_named(inputs: Path, job: Job, change: dict[str, object], message: str) -> None:
    with open_ledger(job.folder) as ledger:
        ledger.append("v01.h5", {**Entry("done", "b").record(), **change})
    with pytest.raises(FileError, match=message):
        run(inputs, job)


def test_an_input_is_opened_and_hashed_once(
    inputs: Path, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the mask and the manifest ask for; and each slice is read once, twice where the mask comes from zeros."""
    write_input(inputs / "v00.h5", 0, n_slices=2)
    opened: list[Path] = []
    hashed: list[Path] = []
    read: list[int] = []
    true_open, true_hash, true_read = open_kspace, hashlib.file_digest, FastmriFile.read_slice

    def counting_open(path: Path, layout: ArrayLayout | None = None) -> KspaceFile:
        opened.append(path)
        return true_open(path, layout)

    def counting_hash(file: BinaryIO, *arguments: object) -> object:
        hashed.append(Path(file.name))
        return true_hash(file, *arguments)  # type: ignore[call-overload]  # passed on

    def counting_read(file: FastmriFile, index: int) -> Acquisition:
        read.append(index)
        return true_read(file, index)

    for caller in ("campaign.batch_work", "campaign.cases", "campaign.references", "reconstruction.run"):
        monkeypatch.setattr(f"mrisps.{caller}.open_kspace", counting_open)
    monkeypatch.setattr(hashlib, "file_digest", counting_hash)
    monkeypatch.setattr(FastmriFile, "read_slice", counting_read)
    source = SourceFile(inputs / "v00.h5", "v00.h5", sha256=sha256_of(inputs / "v00.h5"))
    mask = np.zeros(24, dtype=np.bool_)
    mask[list(COLUMNS)] = True
    np.save(tmp_path / "mask.npy", mask)
    choices: tuple[Path | Literal["from-zeros"] | None, ...] = (None, tmp_path / "mask.npy", "from-zeros")
    for choice in choices:
        opened.clear(), hashed.clear(), read.clear()
        result = run([source], replace(job, mask=choice), redo=True)
        assert made(result) == ["v00.h5"], result.failed
        assert (opened.count(source.path), hashed.count(source.path)) == (1, 1)
        assert read == ([0, 1, 0, 1] if choice == "from-zeros" else [0, 1])


def test_an_entry_comes_back_as_it_was() -> None:
    entry = Entry("done", "a.h5", size=3, seconds=1.5, reused=True)
    assert Entry.of(Path("x"), "a", json.loads(json.dumps(entry.record()))) == entry
