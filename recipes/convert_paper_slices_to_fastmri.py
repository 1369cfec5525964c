"""The paper's knee slices (npz, one slice each) to fastMRI's layout, fully sampled or with the paper's masks.

    python recipes/convert_paper_slices_to_fastmri.py val/ val-h5/ 8

The same: `mrisps convert-paper-slices val/ val-h5/ --acceleration 8`. Copy this file and change it to your needs.
"""

import sys
from pathlib import Path

from mrisps.errors import MrispsError
from mrisps.io.paper_slices import Acceleration, convert_paper_slice

ACCELERATIONS: dict[str, Acceleration | None] = {"8": 8, "16": 16, "none": None}


def main(source: Path, destination: Path, acceleration: Acceleration | None) -> int:
    """Convert every archive; the folders below SOURCE (pd, pdfs) are kept, and name the contrast."""
    for path in sorted(source.rglob("*.npz")):
        output = destination / path.relative_to(source).with_suffix(".h5")
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The archives have the zero frequency in the corner; it is moved to the centre, for the same image.
            convert_paper_slice(path, output, acceleration=acceleration)
        except MrispsError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(f"{output}\n")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in ACCELERATIONS:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER OUTPUT_FOLDER 8|16|none")
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), ACCELERATIONS[sys.argv[3]]))
