"""The entry point: what commands there are. Nothing slow is imported here, so that `--help` is quick."""

from typing import Annotated

import typer

from mrisps.cli.batch import batch
from mrisps.cli.common import DEBUG, INTERRUPTED, USAGE, examples, guarded, show_warnings
from mrisps.cli.compare import compare
from mrisps.cli.convert import convert
from mrisps.cli.demo import demo
from mrisps.cli.evaluate import evaluate
from mrisps.cli.images import denoise, superres
from mrisps.cli.info import info
from mrisps.cli.manifest import fetch_manifest, make_manifest, verify_manifest
from mrisps.cli.mask import mask
from mrisps.cli.paper_files import convert_paper_slices, convert_weights
from mrisps.cli.recipes import copy_recipe, list_recipes, show_recipe
from mrisps.cli.recon import recon
from mrisps.cli.train import train
from mrisps.cli.tune import tune
from mrisps.cli.verify import verify
from mrisps.cli.weights import atoms, weights
from mrisps.threads import prepare_threads

__all__ = ["app", "main"]

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    name="mrisps",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: quick, and the examples keep their lines
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mrisps._version import __version__

        typer.echo(f"mrisps {__version__}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "mrisps demo --output demo-output",
        "mrisps info knee.h5",
        "mrisps recon knee.h5 --recipe knee_pd_acc8 --output recon",
        "mrisps evaluate recon/knee.h5 knee.h5",
    )
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


app.command(
    epilog=examples(
        "mrisps recon knee.h5 --recipe knee_pd_acc8 --output recon",
        "mrisps recon data/ --recipe knee_pdfs_acc8 --output recon --report",
        "mrisps recon full.h5 --recipe head_acc8 --output recon --undersample --slices 12",
        "mrisps recon raw.h5 --recipe my_recipe.py --mask from-zeros --set lam=2e-3 --output recon",
    )
)(guarded(recon))
app.command(
    epilog=examples(
        "mrisps batch night/ --recipe knee_pd_acc8 --output recon --workers 8",
        "mrisps batch knee.toml --root fastmri/ --recipe knee_pdfs_acc8 --output recon --undersample",
        "mrisps batch incoming/ --recipe multicoil --output recon --watch",
        "mrisps batch night/ --recipe multicoil --output recon --scheduler tcp://head:8786",
    )
)(guarded(batch))
app.command(epilog=examples("mrisps verify recon/knee.h5", "mrisps verify recon/knee.h5 --input data/knee.h5"))(
    guarded(verify)
)
app.command(
    epilog=examples(
        "mrisps denoise noisy.png --recipe denoise_sigma25 --output clean",
        "mrisps denoise images/ --recipe denoise_sigma25 --output clean --format npy --parts",
    )
)(guarded(denoise))
app.command(
    epilog=examples("mrisps superres small.png --recipe superres_x4 --weights NCPR.pth --output large --format tif")
)(guarded(superres))
app.command(
    epilog=examples(
        "mrisps evaluate recon/ data/",
        "mrisps evaluate recon/knee.h5 knee.h5 --data-range 1 --crop 320x320 --json scores.json",
        "mrisps evaluate large/x.png reference/x.png --data-range 1 --border 40",
    )
)(guarded(evaluate))
app.command(
    epilog=examples(
        "mrisps compare --data val/ --recipe knee_pd_acc8 --output scores",
        "mrisps compare --data knee.toml --split val --recipe pd=knee_pd_acc8 --recipe pdfs=knee_pdfs_acc8 --output scores",
    )
)(guarded(compare))
app.command(epilog=examples("mrisps info knee.h5", "mrisps info NCPR.pth --json"))(guarded(info))
app.command(
    epilog=examples(
        "mrisps mask --kind equispaced --acceleration 8 --center-fraction 0.04 --shape 640x368",
        "mrisps mask --kind poisson --acceleration 6 --center-fraction 0.1 --shape 256x256 --output mask.json",
    )
)(guarded(mask))
app.command(epilog=examples("mrisps demo", "mrisps demo --output demo-output --weights NCPR.pth"))(guarded(demo))

app.command(
    epilog=examples(
        "mrisps train train_denoise_sigma25_ncpr --data photographs/ --validation others/ --output weights/",
        "mrisps train my_recipe.py --data scans/ --start NCPR.safetensors --output weights/ --resume",
        "torchrun --nproc-per-node 2 -m mrisps train my_recipe.py --data scans/ --output weights/ --device cuda",
    )
)(guarded(train))

app.command(
    epilog=examples(
        "mrisps tune knee_pd_acc8 --data my_knees.toml --output my_knee_acc8.py",
        "mrisps tune denoise_sigma25 --data photographs/ --crop 96x96 --output my_denoise.py",
        "mrisps tune knee_pd_acc8 --data undersampled/ --criterion held-out --output mine.py",
    )
)(guarded(tune))

app.command(epilog=examples("mrisps weights", "mrisps weights denoise_sigma25_ncpr"))(guarded(weights))
app.command(epilog=examples("mrisps atoms denoise_sigma25_ncpr", "mrisps atoms NCPR.pth --output atoms.png"))(
    guarded(atoms)
)

recipes_app = typer.Typer(
    name="recipes", rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=_SETTINGS
)
recipes_app.callback(
    invoke_without_command=True,
    epilog=examples(
        "mrisps recipes", "mrisps recipes show knee_pd_acc8", "mrisps recipes copy knee_pd_acc8 my_recipe.py"
    ),
)(guarded(list_recipes))
recipes_app.command("show", epilog=examples("mrisps recipes show knee_pd_acc8 --json"))(guarded(show_recipe))
recipes_app.command("copy", epilog=examples("mrisps recipes copy knee_pd_acc8 my_recipe.py"))(guarded(copy_recipe))
app.add_typer(recipes_app)

app.command(
    epilog=examples(
        "mrisps convert knee.h5 knee.mrd",
        "mrisps convert meas.dat meas.h5",
        "mrisps convert brain.mat brain.cfl --axes y,x,coil --variable kspace",
        "mrisps convert recon/knee.h5 knee.nii.gz --place-from knee.mrd",
        "mrisps convert dicom/ images/ --to png",
    )
)(guarded(convert))
manifest_app = typer.Typer(
    name="manifest",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
    help="Lists of files with checksums: make, verify, fetch.",
)
manifest_app.command(
    "make",
    epilog=examples(
        "mrisps manifest make fastmri/ --like fastmri_knee --output knee.toml",
        "mrisps manifest make raw/ --split train=0.8,val=0.2 --patient 'sub-([0-9]+)' --output raw.toml",
    ),
)(guarded(make_manifest))
manifest_app.command("verify", epilog=examples("mrisps manifest verify knee.toml fastmri/"))(guarded(verify_manifest))
manifest_app.command(
    "fetch",
    epilog=examples(
        "mrisps manifest fetch paper_mri data/ --split val",
        "mrisps manifest fetch knee.toml data/ --mirror /mnt/fastmri",
    ),
)(guarded(fetch_manifest))
app.add_typer(manifest_app)
app.command("convert-paper-slices", epilog=examples("mrisps convert-paper-slices val/ val-h5/ --acceleration 8"))(
    guarded(convert_paper_slices)
)
app.command("convert-weights", epilog=examples("mrisps convert-weights NCPR.pth NCPR.safetensors"))(
    guarded(convert_weights)
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments
        Without the name of the program; by default those of this process.

    Returns
    -------
    int
        The exit code.
    """
    try:
        app(args=arguments, prog_name="mrisps")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE if end.code else 0
    except KeyboardInterrupt:  # before a command has begun
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    return 0
