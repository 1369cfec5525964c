"""`mrisps manifest make`, `verify` and `fetch`: lists of a dataset's files with their checksums."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, note, result, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, option

if TYPE_CHECKING:
    from mrisps.io.manifest import Manifest

__all__ = ["fetch_manifest", "make_manifest", "verify_manifest"]

Name = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="A manifest that comes with the package, or a TOML file.")
]
Root = Annotated[Path, typer.Argument(metavar="DIR", help="Root of the dataset.")]
IncludeTest = Annotated[
    bool,
    option("--include-test", "Also the split `test`, which is held out: for the final measurement only."),
]
Split = Annotated[str | None, option("--split NAME", "Only this split.")]
Contrast = Annotated[str | None, option("--contrast NAME", "Only this contrast.")]


def make_manifest(
    folder: Root,
    output: Annotated[Path, option("--output FILE", "The TOML file to write.")],
    like: Annotated[
        str | None,
        option("--like NAME|FILE", "Take description, licence and address from this manifest."),
    ] = None,
    fractions: Annotated[
        str | None,
        option(
            "--split train=0.8,...", "Share of the patients a split; without it, folder names say train, val or test."
        ),
    ] = None,
    seed: Annotated[int, option("--seed N", "Another seed, another division of the patients.")] = 0,
    patient: Annotated[
        str | None,
        option(
            "--patient REGEX",
            "Find the patient in a file's path: the first group. Without it: the header's patient, or the file's name.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """List the k-space files of a folder.

    With SHA-256, size, shape, coils, contrast, acceleration and patient; a patient's files are all in one split.
    """
    from mrisps.io import manifest_maker

    with usage_errors():
        new_file(output, overwrite)
        template = None if like is None else _read(like)
        rule = manifest_maker.SplitRule(None if fractions is None else _fractions(fractions), seed)
    manifest = manifest_maker.make_manifest(
        folder,
        name=output.stem,
        description=folder.name if template is None else template.description,
        url="" if template is None else template.url,
        licence="not stated" if template is None else template.licence,
        rule=rule,
        patient_pattern=patient,
        progress=lambda done, total, path: note(f"{done}/{total} {path}"),
    )
    manifest.write(output)
    result(str(output))
    for split in manifest.splits:
        files = [file for file in manifest.files if file.split == split]
        note(f"{split}: {len(files)} files of {len({file.patient for file in files})} patients")


def verify_manifest(manifest: Name, root: Root, include_test: IncludeTest = False) -> None:
    """Check the files of a folder against a manifest.

    Exit code 0: all are right. 1: a file is missing, or its size or checksum is wrong.
    """
    with usage_errors():
        listed = _read(manifest)
    n_wrong = n_files = 0
    for status in listed.verify(root, include_test=include_test):
        n_files += 1
        n_wrong += status.state != "ok"
        result(f"{status.state}  {status.path}")
    note(f"{n_files - n_wrong} of {n_files} files are right")
    if n_wrong:
        raise typer.Exit(FAILURE)


def fetch_manifest(
    manifest: Name,
    root: Root,
    mirrors: Annotated[
        list[str] | None,
        option("--mirror DIR|URL", "Where to look first; may be given several times."),
    ] = None,
    split: Split = None,
    contrast: Contrast = None,
    include_test: IncludeTest = False,
) -> None:
    """Download or copy the files of a manifest.

    Files that are there and right are kept. One whose checksum is wrong is never taken.
    """
    with usage_errors():
        listed = _read(manifest).select(split=split, contrast=contrast, include_test=include_test)
        places = [place if "://" not in place or place.endswith("/") else f"{place}/" for place in mirrors or ()]
    listed.fetch(
        root,
        mirrors=places,
        include_test=include_test,
        progress=lambda done, total, path: result(f"{done}/{total} {path}"),
    )


def _read(name: str) -> "Manifest":
    from mrisps.io.manifest import Manifest, builtin_manifests

    builtin = builtin_manifests()
    path = builtin.get(name, Path(name))
    if path.suffix != ".toml":
        raise UsageError(f"{name}: expected a .toml file or one of {', '.join(builtin)}")
    return Manifest.read(path)


def _fractions(text: str) -> dict[str, float]:
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            fractions[name.strip()] = float(value)
        except ValueError as error:
            raise UsageError(f"--split: expected for example train=0.8,val=0.1,test=0.1, got {text!r}") from error
    return fractions
