"""Siemens raw data (twix, meas_*.dat) to fastMRI's layout, which fastMRI's own code and `mrisps recon` read.

    python recipes/convert_twix_to_fastmri.py meas_MID00042.dat knee.h5

Needs the package twixtools: pip install 'mrisps[twix]'. Copy this file and change it to your needs.
"""

import sys
from pathlib import Path

from mrisps.errors import MrispsError
from mrisps.io.conversion import convert_kspace
from mrisps.io.twix import TwixFile


def main(source: Path, destination: Path) -> int:
    """Convert one file."""
    try:
        # Averages become one image each here; with average="mean", the default, each line is the mean of its averages.
        with TwixFile(source, average="separate") as file:
            for line in file.notes:  # how many readouts of which kind, what was left out
                sys.stdout.write(f"{line}\n")
            sys.stdout.write(f"{file.n_slices} slices of {file.shape[0]} x {file.shape[1]}, {file.n_coils} coils\n")
            # fastMRI's layout has no place for the noise scan, for reference scans and for the position in the patient. To keep
            # them, convert to "mrd" instead.
            report = convert_kspace(file, destination, "fastmri")
    except MrispsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for line in report.lost:
        sys.stdout.write(f"not carried over: {line}\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python {sys.argv[0]} FILE.dat OUTPUT.h5")
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
