"""`mrisps demo`, with a small result in place of minutes of computing."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mrisps.reconstruction.demo import DemoResult, Method
from mrisps.reconstruction.recipe import load_recipe
from mrisps.sampling import make_mask

from .helpers import SHAPE, Cli


@pytest.fixture
def result(image: NDArray[np.float32], rng: np.random.Generator) -> DemoResult:
    reference = np.abs(image) / np.abs(image).max()
    names = ("zero-filled", "total variation (SigPy)", "smooth plus sparse (mrisps)")
    methods = tuple(
        Method(
            name,
            np.abs(reference + error * rng.normal(size=SHAPE)).astype(np.float32),
            *(20 * -np.log10(error), 0.9 - error, error**2, 1.5),
        )
        for name, error in zip(names, (0.1, 0.05, 0.03), strict=True)
    )
    mask = make_mask("poisson", SHAPE, 3, 0.2)
    return DemoResult(
        reference=reference,
        mask=mask,
        methods=methods,
        smooth=reference,
        sparse=0.1 * reference,
        cost_map=0.01 * reference,
        certificate={
            "algorithm": "fast",
            "status": "converged",
            "n_iterations": 120,
            "tolerance": 1e-3,
            "energy": 0.5,
            "energy_data": 0.2,
            "energy_coupling": 0.1,
            "energy_regularisation": 0.2,
            "energy_trace": [[50, 0.7], [100, 0.6], [120, 0.5]],
            "residual_x": 1e-7,
            "residual_a": 9e-4,
            "data_misfit": 1.0,
            "expected_misfit": 1.0,
            "misfit_ratio": 1.0,
            "seconds": 1.5,
            "scale": 1.0,
            "noise_std": 0.005,
            "mask": {"kind": "poisson", "realised_acceleration": 3.0, "acs_lines": 5, "sha256": mask.sha256},
        },
        recipe=load_recipe("head_acc8"),
        weights="small ones, for a test & <nothing> else",
    )


def test_demo(cli: Cli, weights: Path, result: DemoResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrisps.reconstruction.demo.run_demo", lambda weights, device, report: result)
    output = tmp_path / "out"
    assert cli("demo", "--output", output, "--weights", weights) == 0
    assert sorted(path.name for path in output.iterdir()) == ["demo.png", "report.html", "result.json"]
    assert cli.stdout.splitlines()[-1] == f"report: {output / 'report.html'}"
    assert "smooth plus sparse (mrisps)      30.46  0.8700" in cli.stdout
    assert "solver: converged after 120 iterations" in cli.stdout
    with Image.open(output / "demo.png") as picture:
        assert min(picture.size) > 1000
    page = (output / "report.html").read_text()
    assert "test &amp; &lt;nothing&gt; else" in page
    assert "4.44 dB better than total variation (SigPy)" in page
    record = json.loads((output / "result.json").read_text())
    assert [method["name"] for method in record["methods"]] == [method.name for method in result.methods]
    assert record["mask"]["sha256"] == result.mask.sha256
    assert len(record["weights"]["sha256"]) == 64
    assert cli("demo", "--output", output, "--weights", weights) == 0  # its own folder is simply made anew


def test_demo_cannot_write(cli: Cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert cli("demo", "--output", tmp_path / "out", "--weights", weights) == 1
    assert "cannot be used as output folder" in cli.error()


@pytest.mark.slow
def test_real_demo(cli: Cli, tmp_path: Path) -> None:
    assert cli("demo", "--output", tmp_path) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    zero_filled, total_variation, ours = (method["psnr_db"] for method in record["methods"])
    assert zero_filled < total_variation < ours
    assert record["certificate"]["status"] == "settled"
