"""A folder of fastMRI files to ISMRMRD (MRD): one .mrd for each .h5, readable by Gadgetron, BART's and MATLAB's tools.

    python recipes/convert_fastmri_to_mrd.py multicoil_val/ mrd/

The same for one file: `mrisps convert knee.h5 knee.mrd`. Copy this file and change it to your needs.
"""

import sys
from pathlib import Path

from mrisps.errors import MrispsError
from mrisps.io.conversion import convert_kspace
from mrisps.io.open import open_kspace


def main(source: Path, destination: Path) -> int:
    """Convert every file; one that fails does not stop the others."""
    destination.mkdir(parents=True, exist_ok=True)
    n_failed = 0
    for path in sorted(source.glob("*.h5")):
        output = destination / f"{path.stem}.mrd"
        if output.exists():  # go on where an earlier run was stopped: an output is complete or not there
            continue
        try:
            with open_kspace(path) as file:  # slices are read one after the other, never the whole file
                report = convert_kspace(file, output, "mrd")
        except MrispsError as error:
            sys.stderr.write(f"{error}\n")
            n_failed += 1
            continue
        # The reference images (reconstruction_rss) have no place in raw data, and are named here.
        sys.stdout.write(
            f"{output}: {report.n_slices} slices; not carried over: {'; '.join(report.lost) or 'nothing'}\n"
        )
    return int(n_failed > 0)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER OUTPUT_FOLDER")
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
