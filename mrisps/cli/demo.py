"""`mrisps demo`: a real slice, undersampled, reconstructed in three ways."""

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrisps.cli.common import result
from mrisps.cli.files import make_folder
from mrisps.cli.options import WeightsOptions, option
from mrisps.cli.terminal import print_table, steps
from mrisps.status import in_words

if TYPE_CHECKING:
    from mrisps.reconstruction.demo import DemoResult
    from mrisps.reports.demo import DemoContent

__all__ = ["demo"]

RECIPE = "head_acc8"


def demo(
    options: WeightsOptions,
    output: Annotated[
        Path, option("--output DIR", "Folder for report.html, demo.png and result.json (replaced).")
    ] = Path("demo-output"),
) -> None:
    """See it work on a real MR head slice.

    A slice that matplotlib ships gets a smooth phase and noise and is undersampled 8-fold. Compared are zero filling,
    SigPy's total variation and the smooth-plus-sparse model, by default with the trained weights of the package.
    Takes under three minutes on two cores.
    """
    from mrisps.atomic import write_bytes, write_text
    from mrisps.reconstruction.demo import run_demo
    from mrisps.reconstruction.recipe import load_recipe
    from mrisps.reports.demo import demo_png, demo_report
    from mrisps.reports.html import render

    device = options.checked_device()
    found = options.weights_of(load_recipe(RECIPE), RECIPE)
    make_folder(output)
    with steps() as say:
        done = run_demo(found, device=device, report=say)
    content = demo_content(done, found.model.fingerprint())
    write_bytes(output / "demo.png", demo_png(content))
    write_text(output / "report.html", render(demo_report(content)))
    write_text(output / "result.json", json.dumps(_record(done, content), indent=2, allow_nan=False) + "\n")

    rows = [
        [method.name, f"{method.psnr:.2f}", f"{method.ssim:.4f}", f"{method.nmse:.5f}", f"{method.seconds:.1f}"]
        for method in done.methods
    ]
    print_table(["method", "PSNR (dB)", "SSIM", "NMSE", "seconds"], rows)
    state = in_words([done.certificate["status"]])
    result(f"solver: {state} after {done.certificate['n_iterations']} iterations")
    result(f"report: {output / 'report.html'}")


def demo_content(done: "DemoResult", weights_sha256: str) -> "DemoContent":
    """What the report is told of the result."""
    from mrisps.reports.demo import DemoContent, TimedMethod

    return DemoContent(
        reference=done.reference,
        methods=[TimedMethod(m.name, m.image, m.psnr, m.ssim, m.nmse, m.seconds) for m in done.methods],
        mask=done.mask.array2d(),
        smooth=done.smooth,
        sparse=done.sparse,
        cost_map=done.cost_map,
        certificate=done.certificate,
        recipe={**done.recipe.to_dict(), "sha256": done.recipe.sha256()},
        weights=done.weights,
        weights_sha256=weights_sha256,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from mrisps._version import __version__

    packages = {name: version(name) for name in ("torch", "numpy", "sigpy", "matplotlib")}
    return {"mrisps": __version__, **packages, "python": platform.python_version(), "system": platform.system()}


def _record(done: "DemoResult", content: "DemoContent") -> dict[str, object]:
    """The numbers of the demonstration, for programs."""
    return {
        "methods": [
            {"name": m.name, "psnr_db": m.psnr, "ssim": m.ssim, "nmse": m.nmse, "seconds": m.seconds}
            for m in done.methods
        ],
        "data_range": 1.0,
        "mask": done.mask.to_record(),
        "certificate": done.certificate,
        "recipe": content.recipe,
        "weights": {"what": content.weights, "sha256": content.weights_sha256},
        "software": content.versions,
    }
