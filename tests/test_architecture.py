"""The direction of imports: cli -> server, reports, campaign -> training, reconstruction -> kspace, io -> mathematics.

See the table below.

The sources are read, not imported: an import inside a function or for type checking counts for the direction too, because what
a function needs is a dependency like any other. It does not count for what ``import mrisps`` and ``mrisps --help`` load.
"""

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MATHEMATICS = ("operators", "model", "solvers", "bilevel")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "operators": (),
    "sampling": (),
    "io": (),
    "model": MATHEMATICS[:1],
    "solvers": MATHEMATICS[:2],
    "bilevel": MATHEMATICS[:3],
    "quality": ("io",),
    "kspace": (*MATHEMATICS, "sampling", "io"),
    "reconstruction": (*MATHEMATICS, "sampling", "io", "kspace", "quality", "reports"),
    "training": (*MATHEMATICS, "sampling", "io", "quality", "reconstruction"),
    "campaign": (*MATHEMATICS, "sampling", "io", "kspace", "quality", "reports", "reconstruction"),
    "reports": (*MATHEMATICS, "sampling", "io", "quality"),
    "server": ("io", "reconstruction"),
    "cli": (
        *MATHEMATICS,
        "sampling",
        "io",
        "kspace",
        "quality",
        "reconstruction",
        "training",
        "campaign",
        "reports",
        "server",
    ),
}
LIGHT = {"mrisps", "mrisps.quality.metrics", "mrisps.reconstruction.recipe"}
HEAVY = {"torch", "sigpy", "matplotlib", "h5py", "scipy", "skimage"}


@dataclass(frozen=True)
class Import:
    """One imported name: ``a.b`` for ``import a.b``, ``a.b.c`` for ``from a.b import c``."""

    name: str
    line: int
    at_import: bool  # done when the module is imported, not inside a function or for type checkers only


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a module, relative ones resolved."""
    package = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield from (Import(f"{base}.{alias.name}", node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_import)
        else:
            inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside)

    return visit(ast.parse(source), True)


def load_modules() -> dict[str, list[Import]]:
    modules = {}
    for path in sorted((ROOT / "mrisps").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = list(imports_of(path.read_text(encoding="utf-8"), name, is_package))
    return modules


MODULES = load_modules()


def module_of(name: str) -> str:
    """The module that an imported name is, or comes from."""
    return name if name in MODULES else name.rpartition(".")[0]


def layer(module: str) -> str:
    """``operators`` for ``mrisps.operators.linear``; ``""`` for ``mrisps`` and the modules directly in it."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and parts[1] in MAY_IMPORT) else ""


def ours(name: str) -> bool:
    return name.split(".")[0] == "mrisps"


def test_there_is_something_to_check() -> None:
    assert {"mrisps", "mrisps.errors", "mrisps.operators.linear", "mrisps.solvers.fast"} <= MODULES.keys()
    assert any(ours(i.name) for i in MODULES["mrisps.solvers.fast"])


def test_every_package_has_its_place() -> None:
    """A new package has to be added to the table above, in its place in the direction."""
    packages = {path.parent.name for path in (ROOT / "mrisps").glob("*/__init__.py")}
    assert packages <= MAY_IMPORT.keys()


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m)])
def test_imports_go_one_way(module: str) -> None:
    allowed = (layer(module), *MAY_IMPORT[layer(module)], "")
    wrong = [
        f"line {i.line}: {i.name}" for i in MODULES[module] if ours(i.name) and layer(module_of(i.name)) not in allowed
    ]
    assert not wrong, f"{module} may import {allowed[:-1]}, but does import {wrong}"


def test_what_everyone_may_import_imports_nobody() -> None:
    """mrisps.errors, mrisps.atomic: leaves, however they are called."""
    for module, imports in MODULES.items():
        if layer(module) or module in ("mrisps", "mrisps.__main__"):
            continue
        assert {layer(module_of(i.name)) for i in imports if ours(i.name)} <= {""}, module
        assert not {i.name.split(".")[0] for i in imports} & (HEAVY | {"numpy"}), module


def test_nobody_imports_the_public_names() -> None:
    """Inside the package names are taken from where they are; from ``mrisps`` itself only the version."""
    for module, imports in MODULES.items():
        for i in imports:
            if module != "mrisps" and module_of(i.name) == "mrisps":
                assert i.name == "mrisps.__version__", f"{module}, line {i.line}: {i.name}"


def test_io_does_not_need_torch() -> None:
    for module, imports in MODULES.items():
        if layer(module) == "io":
            assert "torch" not in {i.name.split(".")[0] for i in imports}, module


def loaded_with(module: str) -> set[str]:
    """Our modules that importing one of them brings along, packages on the way included."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        current = todo.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        todo.append(current.rpartition(".")[0])
        todo.extend(module_of(i.name) for i in MODULES[current] if i.at_import and ours(i.name))
    return seen


@pytest.mark.parametrize("module", [m for m in MODULES if m in LIGHT or layer(m) == "cli"])
def test_quick_to_import(module: str) -> None:
    """``import mrisps``, ``mrisps --help`` and recipes load nothing heavy, directly or through other modules of ours."""
    for name in sorted(loaded_with(module)):
        heavy = {i.name.split(".")[0] for i in MODULES[name] if i.at_import} & HEAVY
        assert not heavy, f"{module} loads {name}, which loads {heavy}"


def test_no_cycles() -> None:
    """Of imports inside functions neither."""
    graph = {
        module: {module_of(i.name) for i in imports if ours(i.name)} - {module} for module, imports in MODULES.items()
    }
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other in a circle: {error.args[1]}")


def test_only_tests_and_benchmarks_use_fastmri() -> None:
    """It is an optional package, for comparison."""
    apart = {"tests", "benchmarks", "build", "dist"}
    for path in sorted(ROOT.rglob("*.py")):
        folder = path.relative_to(ROOT).parts[0]
        if folder in apart or folder.startswith("."):
            continue
        names = {i.name.split(".")[0] for i in imports_of(path.read_text(encoding="utf-8"), "x", False)}
        assert "fastmri" not in names, path


EXAMPLE = """
import a, b.c
from d import e as f, g
from . import h
from ..i import j
if TYPE_CHECKING:
    import k
else:
    import l
if typing.TYPE_CHECKING:
    import m
try:
    import n
except ImportError:
    import o
class C:
    import p
    def method(self):
        import q
async def function():
    with x:
        from r import s
value = lambda: __import__("t")
"""


def test_the_reader_of_imports() -> None:
    found = list(imports_of(EXAMPLE, "mrisps.model.atoms", is_package=False))
    at_import = {i.name for i in found if i.at_import}
    assert at_import == {"a", "b.c", "d.e", "d.g", "mrisps.model.h", "mrisps.i.j", "l", "n", "o", "p"}
    assert {i.name for i in found if not i.at_import} == {"k", "m", "q", "r.s"}
    (relative,) = imports_of("from . import h", "mrisps.model", is_package=True)
    assert relative.name == "mrisps.model.h"
    assert layer("mrisps.model.atoms") == layer("mrisps.model") == "model"
    assert layer("mrisps.errors") == layer("mrisps") == ""
