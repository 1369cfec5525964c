"""What the README and the docs show works as shown: Python examples run, commands and names exist, links lead somewhere."""

import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer.main
from numpy.typing import NDArray
from PIL import Image

from mrisps.cli.main import app
from mrisps.reconstruction.recipe import builtin_recipes, load_recipe, with_overrides
from mrisps.reconstruction.verdict import LIMITS
from mrisps.reports.flags import Thresholds

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_LINE, LONGEST_ROW = 130, 200


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


# ------------------------------------------------------------------------------------------------------ Python examples


def phantom(n_y: int, n_x: int) -> NDArray[np.float64]:
    """Two smooth ellipses, maximum 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, n_y), np.linspace(-1, 1, n_x), indexing="ij")
    body, spot = (y**2 / 0.6 + x**2 / 0.4), ((y - 0.2) ** 2 + (x + 0.1) ** 2) / 0.05
    return 0.7 / (1 + body**8) + 0.3 / (1 + spot**4)


@pytest.fixture
def files_of_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """A folder with the files that the pages take for granted, small; it is the working directory."""
    n_coils, n_y, n_x = 4, 48, 40
    y, x = np.meshgrid(np.linspace(-1, 1, n_y), np.linspace(-1, 1, n_x), indexing="ij")
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 2 + 1j * a) for a in angles])
    maps /= np.sqrt((abs(maps) ** 2).sum(0))
    mask = np.zeros(n_x, dtype=np.bool_)
    mask[::2] = mask[n_x // 2 - 8 : n_x // 2 + 8] = True

    def measured(images: NDArray[np.complex128]) -> NDArray[np.complex64]:
        kspace = np.fft.ifftshift(images, axes=(-2, -1))
        kspace = np.fft.fftshift(np.fft.fft2(kspace, norm="ortho"), axes=(-2, -1))
        noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
        return np.where(mask, kspace + 0.005 * noise, 0).astype(np.complex64)

    image = phantom(n_y, n_x)
    kspace = measured(maps * image)
    noise_scan = 0.005 * (rng.normal(size=(n_coils, 500)) + 1j * rng.normal(size=(n_coils, 500)))
    for name, array in {"kspace": kspace, "mask": mask, "maps": maps, "noise": noise_scan}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.complex64) if array.dtype.kind == "c" else array)
    for name, slices in {"scan": kspace[None], "knee": measured(image[None].astype(np.complex128))}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"], file["mask"] = slices, mask.astype(np.uint8)
    for name, pixels in {"photo": phantom(24, 24), "small": phantom(12, 12)}.items():
        Image.fromarray((255 * pixels).astype(np.uint8)).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def figures_closed() -> Iterator[None]:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
@pytest.mark.usefixtures("files_of_a_reader", "figures_closed")
def test_python_examples_run(page: Path) -> None:
    """One after the other, with nothing but what the page itself defines, and the reader's files."""
    names: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        exec(compile(code, name_of(page), "exec"), names)


def test_every_python_example_is_executed() -> None:
    """No other spelling of the language hides a block from the test."""
    for page in PAGES:
        languages = set(re.findall(r"^```(\S*)$", page.read_text(), flags=re.MULTILINE))
        assert languages <= {"python", "sh", "toml", ""}, page


# ------------------------------------------------------------------------------------------------------------- commands


def commands() -> list[str]:
    """Every command line of ours in a block, without its comment."""
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    found = [re.search(r"^(?:.* -m )?mrisps (.*)", line.split("#")[0].strip()) for line in lines]
    return sorted({match[1] for match in found if match})


@functools.cache
def root_command() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize("line", commands())
def test_commands_options_and_recipes_exist(line: str) -> None:
    words = shlex.split(line)
    command, n_names = root_command(), 0
    while n_names < len(words) and words[n_names] in getattr(command, "commands", {}):
        command, n_names = command.commands[words[n_names]], n_names + 1
    assert n_names, f"there is no command {words[0]}"
    context = command.context_class(command, info_name=words[0])
    values, left_over, _ = command.make_parser(context).parse_args(words[n_names:])  # unknown options raise
    assert not left_over
    required = [parameter.name for parameter in command.params if parameter.required]
    assert all(values.get(name) not in (None, ()) for name in required), f"{required} are required"
    recipes = values.get("recipe_name") or values.get("recipe_names") or []
    for recipe in [recipes] if isinstance(recipes, str) else recipes:
        name = recipe.partition("=")[2] or recipe
        assert name.endswith(".py") or name in builtin_recipes() | builtin_recipes(training=True)
        if name in builtin_recipes():
            changes = dict(change.split("=", 1) for change in values.get("changes") or [])
            with_overrides(load_recipe(name), changes)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_named_exists(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`mrisps ([a-z][a-z-]*)", text):
        assert name in root_command().commands, f"mrisps {name}"
    for dotted in re.findall(r"`mrisps\.([A-Za-z_][A-Za-z_.]*[A-Za-z_])", prose(page)):
        value: object = importlib.import_module("mrisps")
        for part in dotted.split("."):
            value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"
    for script, rest in re.findall(r"python (benchmarks/\S+\.py)([^#\n]*)", text):
        source = (ROOT / script).read_text()
        for option in re.findall(r"--[a-z][a-z-]*", rest):
            assert f'"{option}"' in source, f"{script} has no {option}"


def test_the_page_of_recipes_lists_all_of_them() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    rows = re.findall(r"^\| (`[a-z].*?) \|", text[text.index("## The recipes of the package") :], flags=re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == {name for name in builtin_recipes() if not name.startswith("convert_")}


def test_the_page_on_the_verdict_lists_all_facts() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    section = text[text.index("## The verdict") : text.index("## The gradient")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == [limit.fact for limit in LIMITS]


def test_the_page_on_batches_lists_the_thresholds_with_their_defaults() -> None:
    text = (ROOT / "docs" / "many-files.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+|none) \|", text, flags=re.MULTILINE)
    expected = {key: "none" if value is None else f"{value:g}" for key, value in asdict(Thresholds()).items()}
    assert dict(rows) == expected


# ---------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text().replace("\n", " ")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


def test_every_page_is_listed_in_the_readme() -> None:
    listed = re.findall(r"\]\((docs/[^)#]+\.md)\)", (ROOT / "README.md").read_text())
    assert set(listed) == {name_of(page) for page in PAGES} - {"README.md"}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_lines_and_tables_are_readable(page: Path) -> None:
    previous: list[str] = []
    for number, line in enumerate(prose(page).splitlines(), 1):
        row = line.startswith("|")
        assert len(line) <= (LONGEST_ROW if row else LONGEST_LINE), f"line {number} of the text: {line[:60]}..."
        if not row:
            assert len(previous) != 1, f"a row outside a table: {previous[0][:60]}"
            previous = []
            continue
        previous.append(line)
        n_cells = len(re.findall(r"(?<!\\)\|", line))
        assert n_cells == len(re.findall(r"(?<!\\)\|", previous[0])), f"another number of cells: {line[:60]}"
        if len(previous) == 2:
            assert set(line) <= set("|-: "), f"a table without a head: {previous[0][:60]}"
