"""Complex images of heads as training data: one file of fully sampled single-coil k-space for each subject.

    python benchmarks/heads.py HEADS.npz FOLDER [--every N]

HEADS.npz holds ``real`` and ``imag`` (image, y, x) and ``subject`` (image,). Each image gets what the recipe `multicoil` does to
an image before its prior sees it: the phase of its low resolution is taken out, and the 99.5th percentile of the magnitude is 1.
FOLDER/subject_N.h5 is in fastMRI's layout. Train with ``mrisps train train_head --data FOLDER --exclude subject_4 subject_5 ...``.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.io.fastmri import write_kspace
from mrisps.kspace.grid import centre, low_resolution, to_kspace
from mrisps.reconstruction.recipe import load_recipe

PERCENTILE = 99.5


def prepared(image: NDArray[np.complex64], width: int) -> NDArray[np.complex64]:
    """k-space (y, x) of the image without its smooth phase, scaled."""
    kspace = to_kspace(image.astype(np.complex64))
    smooth, _ = low_resolution(centre(kspace[None], (width, width)), image.shape)
    image = image * np.exp(-1j * np.angle(smooth[0])) / np.percentile(np.abs(image), PERCENTILE)
    return to_kspace(image.astype(np.complex64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--every", type=int, default=1, help="write only every so many images: few are enough for validation"
    )
    a = parser.parse_args()
    preparation = load_recipe("multicoil").preparation
    assert preparation is not None
    assert preparation.phase is not None
    with np.load(a.heads) as stored:
        images = stored["real"].astype(np.float32) + 1j * stored["imag"].astype(np.float32)
        subjects = stored["subject"]
    a.folder.mkdir(parents=True, exist_ok=True)
    for subject in np.unique(subjects):
        of_subject = images[subjects == subject][:: a.every]
        path = a.folder / f"subject_{subject}.h5"
        write_kspace(path, np.stack([prepared(image, preparation.phase.width) for image in of_subject]))
        print(f"{path}: {len(of_subject)} images")


if __name__ == "__main__":
    main()
