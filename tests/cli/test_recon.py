"""`mrisps recon` on good input."""

import io
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps.io.fastmri import write_kspace
from mrisps.model import Energy
from mrisps.sampling import make_mask, write_mask
from mrisps.solvers import Minimum
from mrisps.solvers.fast import minimise

from .helpers import SHAPE, Cli, recipe_text, to_kspace

Process = Callable[..., subprocess.CompletedProcess[str]]


def reconstruction(path: Path) -> NDArray[np.float32]:
    with h5py.File(path) as file:
        return np.asarray(file["reconstruction"])


def certificates(path: Path) -> list[dict[str, object]]:
    with h5py.File(path) as file:
        return json.loads(file.attrs["certificate"])


def test_files_and_folders(cli: Cli, knee: Path, full_file: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    assert cli("recon", knee.parent, "--recipe", recipe, "--weights", weights, "--output", output) == 0
    assert sorted(path.name for path in output.iterdir()) == ["full.h5", "knee.h5"]
    lines = cli.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(output / "full.h5"), str(output / "knee.h5")]
    assert "2 slices converged" in lines[0]
    assert "fully sampled" in lines[0]
    assert "acceleration 2.40" in lines[1]
    assert "note: full.h5: k-space is fully sampled" in cli.stderr
    assert "2 of 2 files reconstructed; 0 failed" in cli.stderr
    with h5py.File(output / "knee.h5") as file:
        assert file["reconstruction"].shape == (2, 20, 20)
        names = "reconstruction image smooth sparse cost_map zero_filled reference mask ismrmrd_header"
        assert set(file) == {*names.split()}
        provenance = json.loads(file.attrs["provenance"])
    assert provenance["recipe"]["name"] == "small_mri"
    assert provenance["weights"]["name"] == weights.name
    assert [certificate["status"] for certificate in certificates(output / "knee.h5")] == ["converged"] * 2


def test_settled_unless_certified(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    quick = ("--recipe", recipe, "--weights", weights, "--set", "solver.stop=image", "--output")
    assert cli("recon", knee, *quick, tmp_path / "settled") == 0
    assert "2 slices settled" in cli.stdout
    assert [one["status"] for one in certificates(tmp_path / "settled" / "knee.h5")] == ["settled"] * 2
    assert cli("info", tmp_path / "settled" / "knee.h5") == 0
    assert "settled: the image no longer changes" in cli.stdout
    assert cli("recon", knee, *quick, tmp_path / "certified", "--certify") == 0
    assert "2 slices converged" in cli.stdout
    assert [one["status"] for one in certificates(tmp_path / "certified" / "knee.h5")] == ["converged"] * 2


def test_fastmri_evaluate_reads_the_output(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    fastmri_evaluate = pytest.importorskip("fastmri.evaluate", reason="the extra fastmri is not installed")
    output = tmp_path / "out"
    assert cli("recon", knee, "--recipe", recipe, "--weights", weights, "--output", output) == 0
    arguments = Namespace(
        target_path=knee.parent, predictions_path=output, challenge="singlecoil", acceleration=None, acquisition=None
    )
    means = fastmri_evaluate.evaluate(arguments, "reconstruction_esc").means()
    scores = tmp_path / "scores.json"
    assert cli("evaluate", output, knee.parent, "--json", scores) == 0
    mean = json.loads(scores.read_text())["mean"]
    for name in ("psnr", "ssim", "nmse"):
        assert mean[name] == pytest.approx(means[name.upper()], rel=1e-6)


def test_output_of_a_process_has_no_control_characters(
    process: Process, knee: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--slices", "1")
    done = process("recon", knee, *options)
    assert done.returncode == 0, done.stderr
    # so small a matrix has no border that tells the noise
    begin, verdict = done.stderr.splitlines()
    assert begin.startswith("1 file, recipe small_mri, weights small.safetensors, on cpu with ")
    assert verdict == "check: knee.h5: the noise is unknown: nothing says whether the image fits the data"
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.rstrip("\n").isprintable()


def test_progress_bar_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrisps.cli.terminal import SolverProgress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with SolverProgress("[red]knee.h5", 1e-3) as progress:
        for iteration in range(3):
            progress.update(0, 2, iteration + 1, 0.5)
        progress.update(1, 2, 7, 0.25)
        assert progress._bars is not None
        progress._bars.refresh()
    shown = terminal.getvalue()
    assert "[red]knee.h5" in shown
    assert "slice 2/2  iteration 7  residual 2.5e-01" in shown


def test_slices(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    common = ("--recipe", recipe, "--weights", weights)
    assert cli("recon", knee, *common, "--output", tmp_path / "all") == 0
    for text, expected in (("1", [1]), ("0:1", [0]), ("1:", [1]), (":2", [0, 1])):
        output = tmp_path / text.replace(":", "_")
        assert cli("recon", knee, *common, "--output", output, "--slices", text) == 0
        np.testing.assert_allclose(
            reconstruction(output / "knee.h5"), reconstruction(tmp_path / "all" / "knee.h5")[expected], rtol=1e-5
        )


def test_options_reach_the_reconstruction(
    cli: Cli, full_file: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("--undersample", "--scale", 2.5, "--no-crop", "--set", "lam=0.02", "--set", "mask.acceleration=3")
    assert cli("recon", full_file, "--recipe", recipe, "--weights", weights, "--output", output, *options) == 0
    assert reconstruction(output / "full.h5").shape == (2, *SHAPE)
    first = certificates(output / "full.h5")[0]
    assert first["scale"] == 2.5
    assert first["mask"]["nominal_acceleration"] == 3
    with h5py.File(output / "full.h5") as file:
        assert json.loads(file.attrs["provenance"])["recipe"]["lam"] == 0.02


def test_slices_together(
    cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option reaches the solver: both slices are one batch of it."""
    sizes: list[int] = []

    def counted(energy: Energy, *others: Any, **more: Any) -> Minimum:
        sizes.append(len(energy.y))
        return minimise(energy, *others, **more)

    monkeypatch.setattr("mrisps.solvers.fast.minimise", counted)
    common = ("recon", knee, "--recipe", recipe, "--weights", weights)
    assert cli(*common, "--output", tmp_path / "one") == 0, cli.stderr
    assert cli(*common, "--output", tmp_path / "both", "--slices-together", 2) == 0, cli.stderr
    assert sizes == [1, 1, 2]
    assert cli(*common, "--output", tmp_path / "none", "--slices-together", 0) == 2


@pytest.fixture
def unmarked(tmp_path: Path, image: NDArray[np.float32], columns: NDArray[np.bool_]) -> Path:
    """Undersampled, but the file does not say how; one acquired column is zero in one of the slices."""
    path = tmp_path / "unmarked.h5"
    kspace = np.stack([to_kspace(image) * columns] * 2)
    kspace[1, :, 22] = 0
    write_kspace(path, kspace)
    return path


def test_mask_from_zeros(cli: Cli, unmarked: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("recon", unmarked, *options) == 1
    assert f"error: {unmarked}: mask: the file states no mask, and only 10 of 24 columns are not zero" in cli.error()
    assert cli("recon", unmarked, *options, "--mask", "from-zeros") == 0
    found = [certificate["mask"]["realised_acceleration"] for certificate in certificates(tmp_path / "out/unmarked.h5")]
    assert found == [2.4, 2.4]


def test_mask_from_files(
    cli: Cli, unmarked: Path, columns: NDArray[np.bool_], recipe: Path, weights: Path, tmp_path: Path
) -> None:
    as_array, as_json = tmp_path / "mask.npy", tmp_path / "mask.json"
    np.save(as_array, columns)
    write_mask(make_mask("equispaced", SHAPE, 2, 0.1), as_json)
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--overwrite")
    assert cli("recon", unmarked, *options, "--mask", as_array) == 0
    assert certificates(tmp_path / "out/unmarked.h5")[0]["mask"]["kind"] == "file"
    assert cli("recon", unmarked, *options, "--mask", as_json) == 0
    assert certificates(tmp_path / "out/unmarked.h5")[0]["mask"]["kind"] == "equispaced"


def test_not_converged_is_marked_and_fails(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--recipe", recipe, "--weights", weights, "--output", output, "--set", "solver.max_iterations=2")
    assert cli("recon", knee, *options, "--report") == 1
    assert "NOT CONVERGED: 2 of 2" in cli.stdout
    assert [certificate["status"] for certificate in certificates(output / "knee.h5")] == ["max_iter"] * 2
    assert "NOT CONVERGED" in (output / "knee.html").read_text()
    assert cli("recon", knee, *options, "--overwrite", "--accept-unconverged") == 0
    assert "NOT CONVERGED" in cli.stdout


def test_report(cli: Cli, knee: Path, weights: Path, tmp_path: Path) -> None:
    """Hostile names end up as text, in the page and on the terminal."""
    hostile = knee.with_name("<img src=x onerror=alert(1)>\x1b[31m.h5")
    knee.rename(hostile)
    recipe = tmp_path / "hostile.py"
    recipe.write_text(recipe_text("mri", "description='<script>alert(2)</script>', "))
    output = tmp_path / "out"
    assert cli("recon", hostile, "--recipe", recipe, "--weights", weights, "--output", output, "--report") == 0
    assert "\x1b" not in cli.stdout + cli.stderr
    page = output.joinpath(f"{hostile.stem}.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(2)" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert page.count('src="data:image/png;base64,') == 1  # the mask
    assert page.count('type="text/plain"') == 2 * 7  # the panes of both slices
    assert "http:" not in page
    assert "slice 1" in page


def test_existing_outputs_are_kept(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    earlier = output / "knee.h5"
    earlier.write_bytes(b"earlier")
    options = ("--recipe", recipe, "--weights", weights, "--output", output)
    assert cli("recon", knee, *options) == 2
    assert cli.error() == f"error: {earlier}: exists already; use --overwrite to replace it"
    assert earlier.read_bytes() == b"earlier"
    assert cli("recon", knee, *options, "--overwrite") == 0
    assert len(reconstruction(earlier)) == 2


def test_weights_of_the_recipe(cli: Cli, knee: Path, weights: Path, tmp_path: Path) -> None:
    """A relative path in a recipe is relative to the recipe."""
    recipe = tmp_path / "with_weights.py"
    recipe.write_text(recipe_text("mri", f"weights={weights.name!r}, "))
    assert cli("recon", knee, "--recipe", recipe, "--output", tmp_path / "out") == 0


def test_derived_weights(
    cli: Cli, knee: Path, recipe: Path, tmp_path: Path, small_model: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrisps.model.derived_weights.derived_weights", lambda report: small_model)
    assert cli("recon", knee, "--recipe", recipe, "--weights", "derived", "--output", tmp_path / "out") == 0
    assert "weights: derived from photographs" in cli.stderr
    with h5py.File(tmp_path / "out" / "knee.h5") as file:
        assert json.loads(file.attrs["provenance"])["weights"]["name"] == "derived"


def test_without_a_recipe(cli: Cli, knee: Path, weights: Path, tmp_path: Path) -> None:
    """What `mrisps.recon` takes."""
    options = ("--weights", weights, "--output", tmp_path / "out", "--set", "solver.max_iterations=2")
    assert cli("recon", knee, *options, "--accept-unconverged") == 0
    with h5py.File(tmp_path / "out" / "knee.h5") as file:
        assert json.loads(file.attrs["provenance"])["recipe"]["name"] == "multicoil"
