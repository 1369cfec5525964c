"""The entry point: what commands there are, with examples. Nothing slow is imported here, so that `--help` is quick."""

import re
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from mrisps.cli.batch import batch
from mrisps.cli.common import DEBUG, INTERRUPTED, USAGE, guarded, show_warnings
from mrisps.cli.compare import compare
from mrisps.cli.convert import convert
from mrisps.cli.demo import demo
from mrisps.cli.evaluate import evaluate
from mrisps.cli.images import denoise, superres
from mrisps.cli.info import info
from mrisps.cli.manifest import fetch_manifest, make_manifest, verify_manifest
from mrisps.cli.mask import mask
from mrisps.cli.options import spread
from mrisps.cli.paper_files import convert_paper_slices, convert_weights
from mrisps.cli.recipes import copy_recipe, list_recipes, show_recipe
from mrisps.cli.recon import recon
from mrisps.cli.serve import send, serve
from mrisps.cli.to_dicom import to_dicom
from mrisps.cli.train import train
from mrisps.cli.tune import tune
from mrisps.cli.verify import verify
from mrisps.cli.view import view
from mrisps.cli.weights import atoms, weights
from mrisps.threads import prepare_threads

__all__ = ["app", "main"]

RECONSTRUCTION = recon, batch, verify, denoise, superres, evaluate, compare, view, info, mask, demo
LEARNING = train, tune, weights, atoms
FILES = convert, to_dicom, serve, send, convert_paper_slices, convert_weights
EXAMPLES = """
mrisps recon knee.h5 --recipe knee_pd_acc8 --output recon
mrisps recon data/ --recipe knee_pdfs_acc8 --output recon --report
mrisps recon full.h5 --recipe head_acc8 --output recon --undersample --slices 12
mrisps recon raw.h5 --recipe my_recipe.py --mask from-zeros --set lam=2e-3 --output recon
mrisps batch night/ --recipe knee_pd_acc8 --output recon --workers 8
mrisps batch knee.toml --root fastmri/ --recipe knee_pdfs_acc8 --output recon --undersample
mrisps batch incoming/ --recipe multicoil --output recon --watch
mrisps batch night/ --recipe multicoil --output recon --scheduler tcp://head:8786
mrisps verify recon/knee.h5
mrisps verify recon/knee.h5 --input data/knee.h5
mrisps denoise noisy.png --sigma 0.1 --output clean
mrisps denoise images/ --recipe denoise_sigma25 --output clean --format npy --parts
mrisps superres small.png --factor 4 --output large
mrisps superres small.png --recipe superres_x4 --weights NCPR.pth --output large --format tif
mrisps evaluate recon/ data/
mrisps evaluate recon/knee.h5 knee.h5 --data-range 1 --crop 320x320 --json scores.json
mrisps evaluate large/x.png reference/x.png --data-range 1 --border 40
mrisps compare --data val/ --recipe knee_pd_acc8 --output scores
mrisps compare --data knee.toml --split val --recipe pd=knee_pd_acc8 --recipe pdfs=knee_pdfs_acc8 --output scores
mrisps view recon/knee.h5 --open
mrisps view recon/ --reference data/ --output pages
mrisps view a/knee.h5 b/knee.h5 --compare --reference knee.h5 --output pages
mrisps view weights/first.csv weights/second.csv --output pages
mrisps info knee.h5
mrisps info NCPR.pth --json
mrisps mask --kind equispaced --acceleration 8 --center-fraction 0.04 --shape 640x368
mrisps mask --kind poisson --acceleration 6 --center-fraction 0.1 --shape 256x256 --output mask.json
mrisps demo
mrisps demo --output demo-output --weights NCPR.pth
mrisps train train_denoise_sigma25_ncpr --data photographs/ --validation others/ --output weights/
mrisps train my_recipe.py --data scans/ --start NCPR.safetensors --output weights/ --resume
torchrun --nproc-per-node 2 -m mrisps train my_recipe.py --data scans/ --output weights/ --device cuda
mrisps tune knee_pd_acc8 --data my_knees.toml --output my_knee_acc8.py
mrisps tune denoise_sigma25 --data photographs/ --crop 96x96 --output my_denoise.py
mrisps tune knee_pd_acc8 --data undersampled/ --criterion held-out --output mine.py
mrisps weights
mrisps weights denoise_sigma25_ncpr
mrisps atoms denoise_sigma25_ncpr
mrisps atoms NCPR.pth --output atoms.png
mrisps convert knee.h5 knee.mrd
mrisps convert meas.dat meas.h5
mrisps convert brain.mat brain.cfl --axes y,x,coil --variable kspace
mrisps convert recon/knee.h5 knee.nii.gz --place-from knee.mrd
mrisps convert dicom/ images/ --to png
mrisps to-dicom recon/knee.h5 dicom/
mrisps to-dicom recon/knee.h5 dicom/ --reference scanner/IM0001.dcm
mrisps to-dicom images.mrd dicom/ --anonymous --secondary-capture
mrisps serve
mrisps serve --recipe multicoil --recipe my_brain.py --log mrisps.log
mrisps serve --check
mrisps send scan.h5 --config multicoil --output images.mrd
mrisps send scan.h5 --port 9002 --parameter parts=all --parameter pixels=short
mrisps convert-paper-slices val/ val-h5/ --acceleration 8
mrisps convert-weights NCPR.pth NCPR.safetensors
mrisps recipes show knee_pd_acc8 --json
mrisps recipes copy knee_pd_acc8 my_recipe.py
mrisps manifest make fastmri/ --like fastmri_knee --output knee.toml
mrisps manifest make raw/ --split train=0.8,val=0.2 --patient 'sub-([0-9]+)' --output raw.toml
mrisps manifest verify knee.toml fastmri/
mrisps manifest fetch paper_mri data/ --split val
mrisps manifest fetch knee.toml data/ --mirror /mnt/fastmri
mrisps recipes
"""


def _group(name: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        no_args_is_help=name != "recipes",
        rich_markup_mode=None,  # plain help: quick, and the examples keep their lines
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _examples(name: str) -> str:
    """Epilog of a command: its examples, whose lines are kept as they are."""
    found = re.findall(rf"^(?:.* -m )?mrisps {name}(?: .*)?$", EXAMPLES, flags=re.MULTILINE)
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in found)


def _add(group: typer.Typer, commands: Iterable[Callable[..., None]], prefix: str = "") -> None:
    """Add commands by the names of their functions, in a group by the first word."""
    for command in commands:
        words = command.__name__.split("_")
        name = words[0] if prefix else "-".join(words)
        group.command(name, epilog=_examples(f"{prefix}{name}"))(guarded(spread(command)))


def _print_version(wanted: bool) -> None:
    if wanted:
        from mrisps._version import __version__

        typer.echo(f"mrisps {__version__}")
        raise typer.Exit


app = _group("mrisps")


@app.callback(
    epilog="\b\nExamples:\n"
    "  mrisps demo --output demo-output\n"
    "  mrisps info knee.h5\n"
    "  mrisps recon knee.h5 --recipe knee_pd_acc8 --output recon\n"
    "  mrisps evaluate recon/knee.h5 knee.h5\n"
)
def _mrisps(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error comes from.")] = False,
) -> None:
    """MR image reconstruction with a learned patch-based smooth-plus-sparse prior.

    Results go to stdout, messages to stderr. Exit codes: 0 done, 1 something failed or did not converge, 2 the command
    is wrong and nothing was done, 130 interrupted.
    """
    DEBUG.set(debug)
    show_warnings()
    prepare_threads()


_add(app, (*RECONSTRUCTION, *LEARNING, *FILES))
_recipes = _group("recipes")
_recipes.callback(invoke_without_command=True, epilog=_examples("recipes"))(guarded(list_recipes))
_add(_recipes, (show_recipe, copy_recipe), "recipes ")
app.add_typer(_recipes)
_manifest = _group("manifest")
_add(_manifest, (make_manifest, verify_manifest, fetch_manifest), "manifest ")
app.add_typer(_manifest, help="Lists of files with checksums: make, verify, fetch.")


def main(arguments: list[str] | None = None) -> int:
    """Run a command line, by default that of this process, and give its exit code.

    Parameters
    ----------
    arguments
        Without the name of the program.
    """
    try:
        app(args=arguments, prog_name="mrisps")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE if end.code else 0
    except KeyboardInterrupt:  # before a command has begun
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    return 0
