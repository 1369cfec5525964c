"""The page of trainings."""

from pathlib import Path

import pytest

from mrisps.errors import FileError
from mrisps.reports.training import write_training

HEADER = "step,loss,psnr,validation_psnr,iterations,residual,adjoint_iterations,adjoint_residual,skipped,seconds\n"


def write_log(path: Path, n: int, skipped: int = 0) -> Path:
    lines = [f"{k},{1 / k:.4g},{20 + k / n:.4f},,30,1e-3,9,1e-4,{int(k <= skipped)},2.0\n" for k in range(1, n + 1)]
    path.write_text(HEADER + "".join(lines) + f"{n},,,27.5,,,,,,\n{n},,,27.1,,,,,,\n")
    return path


def test_two_trainings_side_by_side(tmp_path: Path) -> None:
    logs = [write_log(tmp_path / "first.csv", 1800), write_log(tmp_path / "<b>.csv", 900, skipped=3)]
    page = write_training(logs, tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 6
    assert "first: 1800 steps, best on the validation images 27.50 dB at step 1800" in page
    assert "&lt;b&gt;: 900 steps" in page
    assert '<td class="number">3</td><td class="number">0.50</td>' in page  # skipped, hours
    assert 'data-level="check"' in page
    assert ">step<" in page
    assert ">PSNR of the validation images (dB)<" in page


def test_the_atoms_are_shown(tmp_path: Path) -> None:
    from mrisps.model import ModelConfig
    from mrisps.model.derived_weights import random_atoms

    log = write_log(tmp_path / "run.csv", 3)
    config = ModelConfig(patch_size=5, n_free_atoms=2, n_synthesis_atoms=5)
    random_atoms([], config, beta=1.0, lam=0.01, seed=0).save(tmp_path / "run.safetensors")
    page = write_training([log], tmp_path / "run.html").read_text(encoding="utf-8")
    assert 'alt="atoms of run"' in page
    (tmp_path / "run.safetensors").write_bytes(b"damaged")
    page = write_training([log], tmp_path / "run.html").read_text(encoding="utf-8")
    assert "atoms of run" not in page
    assert "run.safetensors" in page  # why, as a note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no column step"),
        ("a,b\n1,2\n", "there is no column step"),
        (HEADER + "1,x,,,,,,,,\n", "loss: line 2: could not convert"),
        (HEADER.replace("loss", "cost") + "1,2,,,,,,,,\n", "there is no column loss"),
        ("\xff\n", "cannot be read as a log"),
    ],
)
def test_what_is_no_log(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(FileError, match=message):
        write_training([tmp_path / "x.csv"], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
