"""Pages of result files: whole ones, old ones, damaged ones, large ones, several."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from result_files import write_result

from mrisps.errors import FileError
from mrisps.io.json_text import JsonValue
from mrisps.quality.metrics import nmse, psnr, ssim
from mrisps.reports import results
from mrisps.reports.results import write_comparison, write_pages

Array = NDArray[np.float32]


def certificate(level: str = "good", *reasons: str, status: str = "converged") -> dict[str, JsonValue]:
    return {
        "status": status,
        "n_iterations": 7,
        "residual_a": 1e-4,
        "misfit_ratio": 1.0,
        "scale": 2.0,
        "energy_trace": [[1, 2.0], [4, 1.5], [7, 1.0]],
        "mask": {"kind": "random", "realised_acceleration": 4.0, "acs_lines": 3, "sha256": "0" * 64},
        "verdict": {"level": level, "reasons": list(reasons), "facts": {}},
        "notes": ["a <note>"],
    }


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray[np.complex64]:
    return (rng.normal(size=(3, 12, 10)) + 1j * rng.normal(size=(3, 12, 10))).astype(np.complex64)


@pytest.fixture
def result(tmp_path: Path, images: NDArray[np.complex64]) -> Path:
    """A result with everything, the second of its slices doubtful."""
    path = tmp_path / "knee.h5"
    reference = (np.abs(images) + 0.1).astype(np.float32)
    extras: Mapping[str, NDArray[np.generic]] = {
        "smooth": images,
        "sparse": images,
        "cost_map": reference,
        "zero_filled": reference,
        "reference": reference,
        "mask": np.ones((3, 20, 10), np.uint8),
        "coil_maps": reference.astype(np.float16),
    }
    write_result(
        path,
        images,
        extras=extras,
        certificates=[certificate(), certificate("check", "<few> lines"), certificate()],
        provenance={"input": {"name": "<knee>.h5"}, "slices": [4, 5, 6], "recipe": {"name": "<b>"}},
    )
    return path


def facts_of(page: Path) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    facts: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return facts


def test_everything_in_the_file_is_on_the_page(result: Path, tmp_path: Path, images: NDArray[np.complex64]) -> None:
    (page,) = write_pages(result, tmp_path / "x.html")
    facts, text = facts_of(page), page.read_text(encoding="utf-8")
    names = "reference zero_filled reconstruction error smooth sparse cost_map phase coil_maps"
    assert [pane["name"] for pane in facts["panes"]] == names.split()
    assert [slice_["number"] for slice_ in facts["slices"]] == ["4", "5", "6"]
    assert facts["slices"][1]["reasons"] == "<few> lines"
    assert (
        "<strong>CHECK:</strong> look before you use it (1 of 3 slices), because &lt;few&gt; lines. All 3 slices converged."
        in text
    )
    assert "Acceleration 4, 3 lines in the centre." in text
    assert text.count("a &lt;note&gt;") == 1
    assert "Reconstruction of &lt;knee&gt;.h5" in text
    assert "Certificate of slice 5, the gravest" in text
    assert text.count("<details>") == 5  # slices, certificate, sampling, scale, provenance
    assert text.count("data:image/png") == 1  # the mask


def test_the_quality_is_that_of_the_volume(result: Path, tmp_path: Path, images: NDArray[np.complex64]) -> None:
    image, reference = np.abs(images), (np.abs(images) + 0.1).astype(np.float32)
    peak = float(reference.max())
    text = write_pages(result, tmp_path / "x.html")[0].read_text(encoding="utf-8")
    for value in (
        f"{psnr(image, reference, data_range=peak):.2f} dB",
        f"{ssim(image, reference, data_range=peak):.4f}",
        f"{nmse(image, reference):.3g}",
        f"{peak:.4g}",
    ):
        assert f"<dd>{value}</dd>" in text


def test_a_reference_from_another_file(tmp_path: Path, images: NDArray[np.complex64]) -> None:
    """The slices of a whole volume by their numbers, its middle where it is larger."""
    write_result(tmp_path / "a.h5", images, provenance={"slices": [4, 5, 6]})
    whole = np.zeros((9, 14, 12), np.float32)
    whole[4:7, 1:13, 1:11] = 2 * np.abs(images)
    with h5py.File(tmp_path / "input.h5", "w") as file:
        file["reconstruction_esc"] = whole
    (page,) = write_pages(tmp_path / "a.h5", tmp_path / "a.html", reference=tmp_path / "input.h5")
    assert "<dd>0.25</dd>" in page.read_text(encoding="utf-8")  # NMSE of half the image
    with h5py.File(tmp_path / "short.h5", "w") as file:
        file["reconstruction_esc"] = whole[:6]
    with pytest.raises(FileError, match="expected at least 7 slices, got 6"):
        write_pages(tmp_path / "a.h5", tmp_path / "b.html", reference=tmp_path / "short.h5")
    assert not (tmp_path / "b.html").exists()


def test_a_file_that_says_nothing(tmp_path: Path) -> None:
    """fastMRI's own layout, without a word of ours: no certificate, no verdict, no parts."""
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["reconstruction"] = np.ones((2, 8, 8), np.float32)
    (page,) = write_pages(tmp_path / "plain.h5", tmp_path / "plain.html")
    text = page.read_text(encoding="utf-8")
    assert "no verdict was recorded" in text
    assert "The file has no certificate" in text
    assert 'class="summary" data-level="check"' in text
    assert [pane["name"] for pane in facts_of(page)["panes"]] == ["reconstruction"]


def test_an_older_version(tmp_path: Path) -> None:
    """Without verdict, energies and mask; with an image that this version does not know."""
    images = np.ones((1, 8, 8), np.float32)
    old: JsonValue = {"status": "max_iter", "n_iterations": 3}
    write_result(tmp_path / "old.h5", images, extras={"risk": images}, certificates=[old])
    (page,) = write_pages(tmp_path / "old.h5", tmp_path / "old.html")
    assert "The slice did NOT CONVERGE." in page.read_text(encoding="utf-8")
    assert [pane["title"] for pane in facts_of(page)["panes"]] == ["reconstruction", "risk"]


def test_damaged_texts_are_said(result: Path, tmp_path: Path) -> None:
    with h5py.File(result, "a") as file:
        file.attrs["provenance"] = "{"
        file.attrs["certificate"] = "[]"
        file.attrs["geometry"] = "[1]"
    text = write_pages(result, tmp_path / "x.html")[0].read_text(encoding="utf-8")
    assert text.count("attribute provenance:") == 1
    assert text.count("attribute certificate:") == 1
    assert "has 1 entries, there are 3 slices" in text


def test_data_sets_that_are_no_images(result: Path, tmp_path: Path) -> None:
    with h5py.File(result, "a") as file:
        file["words"] = np.full((3, 12, 10), b"x")
        file["records"] = np.zeros((3, 12, 10), [("a", "f4"), ("b", "f4")])
        file["volume"] = np.zeros((3, 12, 10, 2), np.float32)
        file["flags"] = np.ones((3, 12, 10), np.bool_)
    names = [pane["name"] for pane in facts_of(write_pages(result, tmp_path / "x.html")[0])["panes"]]
    assert {"words", "records", "volume"}.isdisjoint(names)
    assert "flags" in names


def test_pixels_that_are_no_number(result: Path, tmp_path: Path) -> None:
    """The page shows the slice, as unusable; the quality is that of the others."""
    with h5py.File(result, "a") as file:
        file["reconstruction"][1, 2, 3:5] = np.nan
    (page,) = write_pages(result, tmp_path / "x.html")
    levels = [slice_["level"] for slice_ in facts_of(page)["slices"]]
    assert levels == ["good", "unusable", "good"]
    assert facts_of(page)["slices"][1]["reasons"] == "2 pixels are not a number (magenta); <few> lines"
    text = page.read_text(encoding="utf-8")
    assert (
        "<strong>UNUSABLE:</strong> the image is wrong (1 of 3 slices), because 2 pixels are not a number (magenta)"
        in text
    )
    assert "PSNR" in text


def test_a_slice_that_cannot_be_read(tmp_path: Path) -> None:
    """Compressed data that were changed on the disk: the other slices are shown."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        volume = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
        file.create_dataset("reconstruction", data=volume, chunks=(1, 16, 16), compression="gzip", fletcher32=True)
        place = file["reconstruction"].id.get_chunk_info(1).byte_offset
    with path.open("r+b") as stream:
        stream.seek(place + 40)
        stream.write(b"damage")
    (page,) = write_pages(path, tmp_path / "a.html")
    slices = facts_of(page)["slices"]
    assert [slice_["level"] for slice_ in slices] == ["check", "unusable", "check"]
    assert [bool(slice_["planes"]) for slice_ in slices] == [True, False, True]


def test_many_slices_go_to_further_pages(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_PAGE_BYTES", 2 * 8 * 120 * results._BYTES_PER_PIXEL)
    first, second = write_pages(result, tmp_path / "x.html")
    assert second.name == "x_2.html"
    assert [len(facts_of(page)["slices"]) for page in (first, second)] == [2, 1]
    assert facts_of(second)["pages"] == [["x.html", "slices 4 to 5"], ["x_2.html", "slices 6 to 6"]]
    assert facts_of(second)["slices"][0]["number"] == "6"
    tiles = [re.findall("<dd>.*?</dd>", page.read_text(encoding="utf-8")) for page in (first, second)]
    assert tiles[0] == tiles[1] != []  # of the whole volume
    links = [re.findall('<a href="(.*?)"', page.read_text(encoding="utf-8")) for page in (first, second)]
    assert links == [
        ["#slice=4", "#slice=5"],
        ["x.html#slice=5", "#slice=6"],
    ]  # slice 5 is to be looked at, on both pages


def test_nothing_is_written_into_a_folder_that_is_not_there(result: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write_pages(result, tmp_path / "gone" / "x.html")


def test_comparison(result: Path, tmp_path: Path, images: NDArray[np.complex64]) -> None:
    write_result(tmp_path / "other.h5", 2 * images, certificates=[certificate()] * 3)
    page = write_comparison([result, tmp_path / "other.h5"], tmp_path / "c.html")
    facts, text = facts_of(page), page.read_text(encoding="utf-8")
    titles = ["reference", "knee", "other", "other − knee", "error of knee", "error of other"]
    assert [pane["title"] for pane in facts["panes"]] == titles
    assert facts["pair"] == ["result 1", "result 2"]
    assert text.count('<td data-level="check">check</td>') == 1
    assert text.count(" dB</td>") == 2  # the reference of the first is for both
    (tmp_path / "new").mkdir()
    write_result(tmp_path / "new" / "knee.h5", images, certificates=[certificate()] * 3)
    facts = facts_of(write_comparison([result, tmp_path / "new" / "knee.h5"], tmp_path / "d.html"))
    assert facts["panes"][2]["title"] == "new/knee"
    write_result(tmp_path / "small.h5", images[:2])
    with pytest.raises(ValueError, match="of the same slices and size"):
        write_comparison([result, tmp_path / "small.h5"], tmp_path / "d.html")
