"""The report of a batch: flags, and a page that hostile or old records do not spoil."""

import base64
import copy
import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mrisps.errors import FileError
from mrisps.reports.flags import RunFile, Thresholds, flags_of
from mrisps.reports.html import render
from mrisps.reports.run import run_report

GOOD: dict[str, object] = {
    "status": "converged",
    "n_iterations": 20,
    "residual_a": 1e-4,
    "misfit_ratio": 1.0,
    "seconds": 2.0,
    "scale": 3.0,
    "mask": {
        "kind": "random",
        "nominal_acceleration": 8,
        "realised_acceleration": 7.9,
        "acs_lines": 14,
        "sha256": "ab" * 32,
    },
    "image": {"peak": 1.0, "peak_over_noise": 50.0, "edge_energy": 0.01, "cost_mean": 2.0, "cost_p99": 9.0},
}


def run_file(folder: Path, name: str, *changes: dict[str, object]) -> RunFile:
    """A file with a slice for each change of the good certificate."""
    certificates = []
    for change in changes:
        certificate = copy.deepcopy(GOOD)
        for key, value in change.items():
            image = certificate["image"]
            assert isinstance(image, dict)
            (image if key in image else certificate)[key] = value
        certificates.append(certificate)
    output = folder / f"{name}.h5"
    with h5py.File(output, "w") as file:
        for data_set in ("reconstruction", "cost_map"):
            file[data_set] = np.random.default_rng(0).random((len(changes), 12, 10)).astype(np.float32)
    record = {
        "certificates": certificates,
        "provenance": {
            "slices": [5 + k for k in range(len(changes))],
            "software": {"mrisps": "0.1.0"},
            "recipe": {"name": "r", "sha256": "cd" * 32},
        },
    }
    return RunFile(name, output, record, seconds=3.0, memory_bytes=1 << 28)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"verdict": {"level": "check", "reasons": ["few lines"]}}, "to be checked"),
        ({"verdict": {"level": "unusable", "reasons": "x"}}, "unusable"),
        ({"status": "max_iter"}, "not converged"),
        ({"status": None}, "not converged"),
        ({"misfit_ratio": 10.1}, "misfit too high"),
        ({"cost_mean": 6.1}, "cost unlike the others"),
        ({"cost_mean": 0.6}, "cost unlike the others"),
        ({"edge_energy": 8.1}, "wrap-around"),
        ({"peak_over_noise": 4.9}, "empty slice"),
        ({"peak": 0.019}, "empty slice"),
    ],
)
def test_each_flag(tmp_path: Path, change: dict[str, object], kind: str) -> None:
    files = [run_file(tmp_path, "a", {}, {}, {}), run_file(tmp_path, "b", {}, change, {})]
    (flag,) = flags_of(files, Thresholds())
    assert (flag.kind, flag.file, flag.position) == (kind, 1, 1)
    assert files[flag.file].slice_number(flag.position) == 6


def test_page_of_a_flag(tmp_path: Path) -> None:
    page = render(run_report([run_file(tmp_path, "a", {}, {"edge_energy": 9.0})], [], "r", Thresholds()))
    assert "1 slice is flagged." in page

    assert "wrap-around: 9, expected edge energy at most 8" in page


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    """In the summary, in the flags with its reasons, and beside the file; a good verdict, or none, is no flag."""
    bad = {"verdict": {"level": "unusable", "reasons": ["the misfit is 12 times the noise", "<b>"]}}
    good = {"verdict": {"level": "good", "reasons": []}}
    files = [run_file(tmp_path, "a", good, {}), run_file(tmp_path, "b", good, bad)]
    page = render(run_report(files, [], "r", Thresholds()))
    assert "none failed; UNUSABLE: 1 slice; all slices finished; 1 slice is flagged." in page
    assert "the misfit is 12 times the noise; &lt;b&gt; (slice 6)</td>" in page
    rows = page.partition("<tbody>")[2].split("<tr")[1:3]
    assert ['data-level="unusable"' in rows[0], "<td>b</td>" in rows[0], "<td>a</td>" in rows[1]] == [True] * 3


def test_just_inside_is_no_flag(tmp_path: Path) -> None:
    edge = {"misfit_ratio": 10.0, "edge_energy": 8.0, "peak_over_noise": 5.0}
    assert flags_of([run_file(tmp_path, "a", {}, {"cost_mean": 5.9}, edge)], Thresholds()) == []


def test_thresholds_are_settable(tmp_path: Path) -> None:
    files = [run_file(tmp_path, "a", {}, {"misfit_ratio": 1.2})]
    assert [flag.kind for flag in flags_of(files, Thresholds(misfit_high=1.1))] == ["misfit too high"]
    assert {flag.kind for flag in flags_of(files, Thresholds(cost_low=3.0))} == {"cost out of range"}
    (tmp_path / "t.toml").write_text("misfit_high = 2\ncost_low = 1.0\ncost_high = 4.0\n")
    assert Thresholds.read(tmp_path / "t.toml") == Thresholds(misfit_high=2, cost_low=1.0, cost_high=4.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("misfit = 2", "misfit: unknown key; known here: misfit_high"),
        ("misfit_high = 'x'", "misfit_high: expected a number"),
        ("misfit_high = true", "misfit_high: expected a number"),
        ("misfit_high = nan", "misfit_high: expected a finite number, got nan"),
        ("edge_energy = -1", "edge_energy: expected a number"),
        ("cost_low = 2\ncost_high = 1", "cost_high: expected more than"),
        ("=", "is no valid TOML"),
    ],
)
def test_wrong_thresholds_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(FileError, match=message):
        Thresholds.read(tmp_path / "t.toml")


def test_page_of_a_good_run(tmp_path: Path) -> None:
    files = [run_file(tmp_path, f"v{index}", {}, {"cost_mean": 2.0 + index / 10}) for index in range(30)]
    page = render(run_report(files, [], "knee", Thresholds()))
    assert "30 files with 60 slices; none failed; all slices finished; no slice is flagged." in page
    assert page.count("data:image/webp;base64,") == 30
    assert page.count('data-chart=""') == 5
    assert "256 MiB" in page
    assert len(page) < 1_000_000


def test_mixed_versions_are_pointed_out(tmp_path: Path) -> None:
    first, second = run_file(tmp_path, "a", {}), run_file(tmp_path, "b", {})
    provenance = second.record["provenance"]
    assert isinstance(provenance, dict)
    provenance["software"] = {"mrisps": "0.0.9"}
    page = render(run_report([first, second], [], "r", Thresholds()))
    assert "NOT THE SAME IN ALL FILES: software.mrisps." in page
    assert "0.1.0 (1 file); 0.0.9 (1 file)" in page


def test_nothing_but_failures() -> None:
    page = render(run_report([], [("<script>.h5", "is <b>bad</b>")], "r", Thresholds()))
    assert "&lt;script&gt;.h5" in page
    assert "<script>.h5" not in page
    assert "0 files with 0 slices; 1 failed" in page
    assert 'data-level="failed"' in page


def test_records_without_what_is_expected(tmp_path: Path) -> None:
    """Old or damaged records: dashes, no exception."""
    good = run_file(tmp_path, "a", {})
    empty = RunFile(
        "x", tmp_path / "gone.h5", {"certificates": [{}, {"image": 3, "mask": "none"}], "provenance": 5}, 1.0, 0
    )
    none = RunFile("y", tmp_path / "gone.h5", {}, 1.0, 0)
    page = render(run_report([good, empty, none], [], "r", Thresholds()))
    assert "NOT CONVERGED: 2 slices" in page


def test_a_solver_that_stopped_is_said_once(tmp_path: Path) -> None:
    stopped = {"status": "max_iter"}
    judged = {**stopped, "verdict": {"level": "check", "reasons": ["the solver stopped"]}}
    page = render(
        run_report([run_file(tmp_path, "a", stopped), run_file(tmp_path, "b", judged)], [], "r", Thresholds())
    )
    assert page.count('<td class="prose">NOT CONVERGED: the cap on iterations came first</td>') == 1
    assert page.count('<td class="prose">the solver stopped</td>') == 1


def test_names_lead_to_the_pages_beside_the_outputs(tmp_path: Path) -> None:
    """At the slice that is flagged; a name that is no address is made one."""
    files = [run_file(tmp_path, "a#b <c>.h5", {}, {"edge_energy": 9.0}), run_file(tmp_path, "d", {})]
    files[0].output.with_suffix(".html").write_text("")
    page = render(run_report(files, [], "r", Thresholds()))
    assert '<a href="./a%23b%20%3Cc%3E.html#slice=6">a#b &lt;c&gt;.h5</a>' in page
    assert "<td>d</td>" in page


def test_thumbnails_keep_the_image(tmp_path: Path) -> None:
    """Not squashed, the window as in the viewer, and a slice with NaN does not stop the page."""
    file = run_file(tmp_path, "a", {})
    with h5py.File(file.output, "w") as stream:
        stream["reconstruction"] = np.tile(np.linspace(0, 5, 320, dtype=np.float32), (1, 640, 1))
    page = render(run_report([file], [], "r", Thresholds()))
    found = re.search('data:image/webp;base64,([^"]*)', page)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        assert picture.size == (80, 160)
        shades = np.asarray(picture.convert("L"))
    assert shades[80, 2] < 20 < 100 < shades[80, 40] < 160 < 240 < shades[80, 78]
    with h5py.File(file.output, "a") as stream:
        stream["reconstruction"][0, 3, 3] = np.nan
    assert "data:image/webp" in render(run_report([file], [], "r", Thresholds()))
