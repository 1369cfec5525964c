"""`mrisps manifest make`, `verify` and `fetch`."""

from pathlib import Path

import numpy as np
import pytest
from raw_files import header, lines_of, normal, write_mrd

from mrisps.io.fastmri import write_kspace
from mrisps.io.manifest import HELD_OUT, Manifest
from mrisps.io.manifest_maker import SplitRule

from .helpers import Cli


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients with two files each, in folders as fastMRI's; one file is ISMRMRD."""
    root = tmp_path / "set"
    kspace = normal((3, 16, 12))
    mask = np.arange(12) % 3 == 0
    for patient, split in (("a", "train"), ("b", "val")):
        (root / f"multicoil_{split}").mkdir(parents=True)
        for number in range(2):
            path = root / f"multicoil_{split}" / f"{patient}{number}.h5"
            attributes = {"patient_id": patient}
            write_kspace(
                path,
                np.where(mask, kspace, 0)[np.newaxis].astype(np.complex64),
                mask=mask,
                contrast="T2",
                attributes=attributes,
            )
    head = header(patient_id="a", patient_position="HFS", protocol_name="gre")
    write_mrd(root / "multicoil_train" / "a2.mrd", lines_of(kspace, range(12)), head)
    return root


def test_make_verify_fetch(cli: Cli, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.toml"
    assert cli("manifest", "make", folder, "--like", "fastmri_knee", "--output", output) == 0
    assert cli.stdout == f"{output}\n"
    assert "train: 3 files of 1 patients" in cli.stderr
    manifest = Manifest.read(output)
    assert "no redistribution" in manifest.licence
    described = {file.path: file for file in manifest.files}
    file = described["multicoil_val/b1.h5"]
    assert (file.split, file.patient, file.contrast, file.n_slices, file.n_coils) == ("val", "b", "T2", 1, 3)
    assert (file.shape, file.acceleration) == ("16x12", 3)
    assert described["multicoil_train/a2.mrd"].contrast == "gre"
    assert described["multicoil_train/a2.mrd"].acceleration == 1
    assert cli("manifest", "make", folder, "--output", output) == 2

    assert cli("manifest", "verify", output, folder) == 0
    assert "5 of 5 files are right" in cli.stderr
    copy = tmp_path / "copy"
    assert cli("manifest", "fetch", output, copy) == 1
    assert "There is no address, and no mirror was given" in cli.error()
    assert cli("manifest", "fetch", output, copy, "--mirror", folder, "--split", "val") == 0
    assert cli("manifest", "verify", output, copy) == 1
    assert "2 of 5 files are right" in cli.stderr
    assert f"missing  {copy / 'multicoil_train' / 'a0.h5'}" in cli.stdout


def test_patients_stay_on_one_side(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (folder / "multicoil_val" / "a9.h5").write_bytes((folder / "multicoil_train" / "a0.h5").read_bytes())
    assert cli("manifest", "make", folder, "--output", tmp_path / "x.toml") == 1
    assert "patient: a is in the splits train and val" in cli.error()
    options = ("--split", "train=0.5,test=0.5", "--output", tmp_path / "x.toml")
    assert cli("manifest", "make", folder, *options) == 0
    manifest = Manifest.read(tmp_path / "x.toml")
    assert len({(file.patient, file.split) for file in manifest.files}) == 2
    assert cli("manifest", "make", folder, *options, "--overwrite", "--patient", "/([ab])[0-9]") == 0
    assert {file.patient for file in Manifest.read(tmp_path / "x.toml").files} == {"a", "b"}
    assert cli("manifest", "make", folder, *options, "--overwrite", "--patient", "sub([0-9]+)") == 1
    assert "patient: does not match" in cli.error()


def test_the_split_depends_on_the_patient_alone() -> None:
    rule = SplitRule({"train": 0.8, "val": 0.1, HELD_OUT: 0.1}, seed=3)
    from pathlib import PurePosixPath

    splits = [rule.split_of(f"p{n}", PurePosixPath("x.h5")) for n in range(2000)]
    assert splits == [rule.split_of(f"p{n}", PurePosixPath("other/y.h5")) for n in range(2000)]
    assert abs(splits.count("train") / 2000 - 0.8) < 0.03
    assert splits != [SplitRule(rule.fractions).split_of(f"p{n}", PurePosixPath("x.h5")) for n in range(2000)]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--split", "train=0.8"), 2, "expected fractions that add up to 1"),
        (("--split", "train"), 2, "--split: expected for example"),
        (("--like", "none"), 2, "none: expected a .toml file or one of "),
        (("--patient", "("), 1, "patient_pattern: "),
        (("--patient", "a"), 1, "patient_pattern: expected a group"),
    ],
)
def test_wrong_options(
    cli: Cli, folder: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    assert cli("manifest", "make", folder, "--output", tmp_path / "x.toml", *options) == code
    assert message in cli.error()


def test_folders_without_kspace_or_split(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("manifest", "make", tmp_path / "empty", "--output", tmp_path / "x.toml") == 1
    assert "expected files ending in .cfl, .dat" in cli.error()
    assert cli("manifest", "make", folder / "multicoil_val", "--output", tmp_path / "x.toml") == 1
    assert "split: no folder's name says train, val or test" in cli.error()


def test_held_out_files_are_not_touched(cli: Cli, tmp_path: Path) -> None:
    assert cli("manifest", "fetch", "paper_mri", tmp_path, "--split", "test") == 2
    assert "'test' is held out" in cli.error()
    assert cli("manifest", "verify", "paper_superres", tmp_path) == 1
    assert "0 of 1 files are right" in cli.stderr
