"""`mrisps batch` and `mrisps verify`: options, exit codes, what is said."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from batch_files import Inline, data_sets, make_job, small_model, write_input, write_inputs

from mrisps.campaign import workers as workers_module
from mrisps.campaign.batch import open_ledger
from mrisps.campaign.batch_item import BATCH_FOLDER
from mrisps.cli.batch import BatchProgress

from .helpers import PROJECT, Cli


class InlineWorkers(Inline):
    def __init__(self, devices: list[str], threads: int) -> None:
        assert devices == ["cpu"] * len(devices)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path / "in", 2)
    return tmp_path / "in"


@pytest.fixture
def arguments(
    tmp_path: Path, recipe: Path, weights: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> list[object]:
    """Of a batch whose workers are in this process."""
    monkeypatch.setattr(workers_module, "LocalWorkers", InlineWorkers)
    options = ["--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--threads", 1, "--no-report"]
    return ["batch", inputs, *options]


def test_batch(cli: Cli, arguments: list[object], inputs: Path, tmp_path: Path) -> None:
    assert cli(*arguments, "--report") == 0
    out = tmp_path / "out"
    names = {"v00.h5", "v00.json", "v01.h5", "v01.json", "v00.html", "v01.html", "report.html", "_batch"}
    assert {path.name for path in out.iterdir()} == names
    lines = cli.stdout.splitlines()
    assert lines[0].startswith("[1/2] v00.h5: CHECK: 1 slice finished, ")
    assert lines[0].endswith(" left")
    assert lines[1].startswith("[2/2] v01.h5: CHECK: 1 slice finished, ")
    assert "2 files reconstructed, 0 were up to date; 0 failed" in cli.stderr
    page = (out / "report.html").read_text()
    assert "2 files with 2 slices; none failed; to be checked: 2 slices; all slices finished" in page
    assert page.count('<a href="./v0') == 2  # to the pages of the files
    assert (out / "v00.html").is_file()
    assert cli(*arguments, "--resume") == 0
    assert cli.stdout == ""
    assert "0 files reconstructed, 2 were up to date; 0 failed" in cli.stderr
    assert cli(*arguments, "--no-resume") == 0
    assert "2 files reconstructed" in cli.stderr


def test_same_as_recon(
    cli: Cli, arguments: list[object], inputs: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    assert cli(*arguments) == 0
    assert cli("recon", inputs, "--recipe", recipe, "--weights", weights, "--output", tmp_path / "recon") == 0
    for name in ("v00.h5", "v01.h5"):
        assert data_sets(tmp_path / "recon" / name) == data_sets(tmp_path / "out" / name)
    # and what recon has made is taken for what it is
    changed = [tmp_path / "recon" if argument == tmp_path / "out" else argument for argument in arguments]
    assert cli(*changed) == 0
    assert "[1/2] v00.h5: was up to date: CHECK: 1 slice finished" in cli.stdout


def test_failures_and_their_reasons(cli: Cli, arguments: list[object], inputs: Path, tmp_path: Path) -> None:
    (inputs / "bad.h5").write_text("nothing")
    assert cli(*arguments, "--report") == 1
    assert f"[1/3] bad.h5: FAILED: {inputs}/bad.h5: is not an HDF5 file" in cli.stdout
    log = tmp_path / "out" / "_batch" / "logs" / "bad.h5.log"
    assert f"  failed: {inputs}/bad.h5: is not an HDF5 file (log: {log})" in cli.stderr
    assert log.is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 failed" in page
    assert "bad.h5: is not an HDF5 file" in page


def test_unconverged_slices_count(cli: Cli, arguments: list[object]) -> None:
    cap = ("--set", "solver.max_iterations=2")
    assert cli(*arguments, *cap) == 1
    assert "NOT CONVERGED: 1 of 1" in cli.stdout
    assert "2 of them with slices that did NOT CONVERGE" in cli.stderr
    assert cli(*arguments, *cap) == 1  # nothing is done, and it still is not well
    assert cli(*arguments, *cap, "--accept-unconverged") == 0


def test_second_batch_is_refused(cli: Cli, arguments: list[object], tmp_path: Path) -> None:
    (tmp_path / "out" / BATCH_FOLDER).mkdir(parents=True)
    with open_ledger(tmp_path / "out"):
        assert cli(*arguments) == 2
        assert "another batch works on this folder" in cli.error()
        assert not list((tmp_path / "out").glob("*.h5"))
    assert cli(*arguments) == 0


def test_wrong_commands(cli: Cli, arguments: list[object], inputs: Path, tmp_path: Path) -> None:
    def refused(*changed: object) -> str:
        assert cli(*changed) == 2
        return cli.error()

    rest = arguments[2:]
    assert "does not exist" in refused("batch", tmp_path / "nowhere", *rest)
    assert "for single files there is `mrisps recon`" in refused("batch", inputs / "v00.h5", *rest)
    (tmp_path / "empty").mkdir()
    assert "empty: expected files ending in .cfl, .dat, .h5" in refused("batch", tmp_path / "empty", *rest)
    assert "is the folder of the inputs" in refused(*arguments[:-5], "--output", inputs)
    assert "--root: is for manifests" in refused(*arguments, "--root", inputs)
    assert "give one of them" in refused(*arguments, "--undersample", "--mask", "from-zeros")
    (tmp_path / "limits.toml").write_text("misfit = 1.5\n")
    assert "limits.toml: misfit: unknown key" in refused(*arguments, "--thresholds", tmp_path / "limits.toml")
    (tmp_path / "limits.toml").write_text("cost_factor = 0.5\n")
    assert "limits.toml: cost_factor: expected a number >= 1" in refused(
        *arguments, "--thresholds", tmp_path / "limits.toml"
    )
    assert not (tmp_path / "out").exists()


def test_manifest(cli: Cli, arguments: list[object], inputs: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "some.toml"
    assert cli("manifest", "make", inputs, "--output", manifest, "--split", "val=1") == 0
    write_input(inputs / "v01.h5", 8)
    assert cli("batch", manifest, "--root", inputs, *arguments[2:]) == 1
    assert "v00.h5: CHECK: 1 slice finished" in cli.stdout
    assert "the manifest says" in cli.stdout
    assert "--watch: is for folders" in (cli("batch", manifest, "--watch", *arguments[2:]), cli.error())[1]


def test_thresholds_reach_the_report(cli: Cli, arguments: list[object], tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("edge_energy = 0.0\ncost_high = 1e-9\n")
    assert cli(*arguments, "--report", "--thresholds", tmp_path / "limits.toml") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 slices are flagged" in page
    assert "wrap-around" in page
    assert "cost out of range" in page


def test_workers_and_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrisps.campaign.workers import devices_of

    monkeypatch.setattr("mrisps.campaign.workers.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert devices_of("cpu", None, None, on_cluster=False) == (["cpu"] * 8, 1)
    assert devices_of("cpu", 2, None, on_cluster=False) == (["cpu"] * 2, 4)
    assert devices_of("cpu", 3, None, on_cluster=False) == (["cpu"] * 3, 2)
    assert devices_of("cpu", 16, None, on_cluster=False) == (["cpu"] * 16, 1)
    assert devices_of("cpu", 2, 3, on_cluster=False) == (["cpu"] * 2, 3)
    assert devices_of("cuda", 2, None, on_cluster=True) == (["cuda"] * 2, 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert devices_of("cuda", None, None, on_cluster=False) == ([f"cuda:{i}" for i in range(4)], 2)
    assert devices_of("cuda:1", None, None, on_cluster=False) == (["cuda:1"], 8)
    with pytest.raises(ValueError, match="there are 4"):
        devices_of("cuda", 5, None, on_cluster=False)
    with pytest.raises(ValueError, match="one for each GPU"):
        devices_of("cuda:1", 2, None, on_cluster=False)
    assert devices_of("cpu", None, 4) == (["cpu"] * 2, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert devices_of("cpu", 1, None) == (["cpu"], 2)
    assert devices_of("cpu", None, None) == (["cpu"] * 4, 2)
    assert devices_of("cpu", 1, 3) == (["cpu"], 3)
    assert devices_of("cuda", None, None) == ([f"cuda:{i}" for i in range(4)], 2)


def test_a_line_every_half_minute_without_a_terminal(
    cli: Cli, arguments: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr("mrisps.cli.terminal.clock", lambda: next(times))
    assert cli(*arguments) == 0
    lines = cli.stderr.splitlines()
    assert lines[0].startswith("2 files, recipe small_mri, weights small.safetensors, on cpu with ")
    assert any(line.startswith("files: 2 of 2 finished") for line in lines)


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import io

    from mrisps.campaign.batch_item import Entry, items_of
    from mrisps.campaign.sources import SourceFile

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    sources = [SourceFile(tmp_path / name, name, size=10) for name in ("[red]a.h5", "b.h5")]
    first, second = items_of(make_job(tmp_path / "out"), sources)
    with BatchProgress() as progress:
        progress.waiting([first, second])
        progress.tick([("[red]a.h5", 2, 30, 17)])
        assert progress._bars is not None
        progress._bars.refresh()
        progress.finished(
            first, Entry("done", "a", n_slices=30, n_converged=30, verdict="check", summary="9 iterations")
        )
        progress.tick([("b.h5", 0, 3, 1)])
        progress._bars.refresh()
        assert progress.left().endswith("s left")
    shown = screen.getvalue()
    assert "slice 3/30  iteration 17" in shown
    assert "[1/2] [red]a.h5: CHECK: 30 slices finished, 9 iterations" in shown
    assert "slice 1/3  iteration 1" in shown


def test_watch_ends_with_ctrl_c(tmp_path: Path, recipe: Path, weights: Path, inputs: Path) -> None:
    """As a process of its own, with real workers."""
    options = (
        f"--recipe {recipe} --weights {weights} --output {tmp_path}/out --workers 1 --watch --settle 0.3 --no-report"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mrisps", "batch", str(inputs), *options.split()],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "v00.h5: CHECK: 1 slice finished" in process.stdout.readline()
        assert "v01.h5: CHECK: 1 slice finished" in process.stdout.readline()
        write_input(inputs / "v02.h5", 2)
        assert "v02.h5: CHECK: 1 slice finished" in process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, messages
    assert "the watch ends" in messages
    assert "3 files reconstructed" in messages


# ------------------------------------------------------------------------------------------------------------------- verify


def test_verify(cli: Cli, arguments: list[object], inputs: Path, tmp_path: Path) -> None:
    assert cli(*arguments) == 0
    output = tmp_path / "out" / "v00.h5"
    assert cli("verify", output) == 0
    assert cli.stdout == f"{output}: identical, 5 data sets\n"
    near = tmp_path / "moved" / "v00.h5"
    near.parent.mkdir()
    (inputs / "v00.h5").rename(near)
    assert cli("verify", output) == 0  # the same name and content, near the output
    elsewhere = tmp_path / "elsewhere.h5"
    near.rename(elsewhere)
    assert cli("verify", output) == 1
    assert "v00.h5: was made from v00.h5, SHA-256 " in cli.error()
    assert "name it with --input" in cli.error()
    assert cli("verify", output, "--input", near) == 2
    assert cli("verify", output, "--input", elsewhere) == 0
    assert cli("verify", output, "--input", inputs / "v01.h5") == 1
    assert "v01.h5: is not the input of v00.h5: SHA-256" in cli.error()


def test_verify_names_the_difference(cli: Cli, arguments: list[object], tmp_path: Path) -> None:
    assert cli(*arguments, "--scale", 2.0, "--undersample", "--set", "mask.seed=3") == 1  # undersampled already
    assert cli(*arguments, "--scale", 2.0) == 0
    output = tmp_path / "out" / "v00.h5"
    assert cli("verify", output) == 0
    with h5py.File(output, "r+") as file:
        file["smooth"][0, 3, 3] += 0.5
    assert cli("verify", output) == 1
    assert "was changed after it was made: not as v00.json says (data sets smooth)" in cli.error()
    output.with_suffix(".json").unlink()
    assert cli("verify", output) == 1
    assert "smooth: relative difference" in cli.stdout
    assert "cost_map: identical" in cli.stdout
    assert "DIFFERENT" in cli.stdout
    assert cli("verify", output, "--input", tmp_path / "in" / "v00.h5", "--tolerance", 10) == 0
    with h5py.File(output, "r+") as file:
        record = json.loads(file.attrs["provenance"])
        record["software"]["torch"] = "0.4"
        file.attrs["provenance"] = json.dumps(record)
    assert cli("verify", output, "--input", tmp_path / "in" / "v00.h5") == 1
    assert "changed: torch: 0.4 then, " in cli.stderr


def test_verify_after_recon(
    cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight after `mrisps recon`, with nothing named: everything is in the output, or found by its hash."""
    monkeypatch.chdir(tmp_path)
    options = ("--recipe", recipe, "--weights", weights, "--output", "recon", "--keep", "--accept-unconverged")
    assert cli("recon", knee, *options) == 0, cli.stderr
    assert cli("verify", "recon/knee.h5") == 0, cli.stderr
    assert cli.stdout == "recon/knee.h5: identical, 5 data sets\n"


def test_verify_of_recon_with_a_given_mask(
    cli: Cli, full_file: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    """Undersampling, chosen slices, another scale: all of it is in the output."""
    common = ("--recipe", recipe, "--weights", weights, "--slices", "1", "--no-crop")
    assert cli("recon", full_file, *common, "--output", tmp_path / "a", "--undersample") == 0
    assert cli("verify", tmp_path / "a" / "full.h5", "--input", full_file, "--weights", weights) == 0
    mask = tmp_path / "mask.json"
    assert (
        cli(
            "mask",
            "--kind",
            "random",
            "--acceleration",
            3,
            "--center-fraction",
            0.2,
            "--shape",
            "32x24",
            "--output",
            mask,
        )
        == 0
    )
    assert cli("recon", full_file, *common, "--output", tmp_path / "b", "--mask", mask, "--scale", 3) == 0
    assert cli("verify", tmp_path / "b" / "full.h5", "--input", full_file, "--weights", weights) == 0
    weights.rename(tmp_path / "renamed.safetensors")
    assert cli("verify", tmp_path / "b" / "full.h5", "--input", full_file) == 1
    assert "are not at hand: name them with --weights" in cli.error()
    other = tmp_path / "other.safetensors"
    small_model(5).save(other)
    assert cli("verify", tmp_path / "b" / "full.h5", "--input", full_file, "--weights", other) == 1
    assert "are not the weights of full.h5" in cli.error()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("recipe", "lam"), -1, "provenance.recipe.lam: expected a number > 0"),
        (("recipe", "lamda"), 1, "provenance.recipe.lamda: unknown key"),
        (("recipe", "solver"), {"tolerance": "x"}, "provenance.recipe.solver.tolerance: expected a number"),
        (("slices",), [0, 2], "provenance.slices: expected consecutive"),
        (("options", "mask"), {"format": 1}, "provenance.options.mask"),
        (("input",), "x", "provenance.input: is missing or no object"),
        (("machine", "device"), 3, "provenance.machine.device: expected a text"),
    ],
)
def test_verify_of_damaged_records(
    cli: Cli, arguments: list[object], tmp_path: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    assert cli(*arguments) == 0
    output = tmp_path / "out" / "v00.h5"
    output.with_suffix(".json").unlink()
    with h5py.File(output, "r+") as file:
        record = json.loads(file.attrs["provenance"])
        place = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        file.attrs["provenance"] = json.dumps(record)
    assert cli("verify", output, "--input", tmp_path / "in" / "v00.h5") in (1, 2)
    assert message in cli.error()


def test_verify_of_other_files(cli: Cli, inputs: Path) -> None:
    assert cli("verify", inputs / "v00.h5") == 1
    assert "v00.h5" in cli.error()
