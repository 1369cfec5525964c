"""Small results and raw files with every geometry that a scanner may choose, for the tests of DICOM and of the server."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from raw_files import header

from mrisps.io.acquisition import Geometry, triple
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.json_text import JsonValue
from mrisps.io.result_file import ResultWriter

SHAPE = (24, 16)
NAME, PATIENT = "Doe^Jane", "p-0815"
TEXTS = {
    "subjectInformation/patientName": NAME,
    "subjectInformation/patientBirthdate": "1980-02-29",
    "subjectInformation/patientGender": "F",
    "studyInformation/studyDate": "2024-05-17",
    "studyInformation/studyTime": "22:34:35",
    "studyInformation/studyInstanceUID": "1.2.826.0.1.3680043.9.1",
    "measurementInformation/frameOfReferenceUID": "1.2.826.0.1.3680043.9.2",
    "acquisitionSystemInformation/systemVendor": "maker",
    "acquisitionSystemInformation/institutionName": "St Elsewhere",
    "sequenceParameters/TR": "219.639999",
    "sequenceParameters/TE": "1.62",
    "sequenceParameters/TI": "300",
}
OBLIQUE = np.array([[0.8, 0.36, -0.48], [-0.6, 0.48, -0.64], [0.0, 0.8, 0.6]])  # rows: orthonormal
DIRECTIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # readout, phase encoding
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial, phase encoding left to right": ((0, 1, 0), (1, 0, 0)),
    "axial, readout from left to right": ((-1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 0, -1), (0, 1, 0)),
    "sagittal, phase encoding head to foot": ((0, 1, 0), (0, 0, 1)),
    "coronal": ((0, 0, 1), (1, 0, 0)),
    "oblique": (tuple(OBLIQUE[0]), tuple(OBLIQUE[1])),
    "oblique, phase encoding the other way": (tuple(OBLIQUE[1]), tuple(-OBLIQUE[0])),
}


def geometry_of(name: str, offset: float = 0.0) -> Geometry:
    y, x = (np.asarray(direction, np.float64) for direction in DIRECTIONS[name])
    through = np.cross(y, x)
    return Geometry(
        (240.0, 120.0, 5.0),
        triple(np.array([10.0, -20.0, 30.0]) + offset * through),
        triple(y),
        triple(x),
        triple(through),
    )


def clinical_header(**changes: object) -> IsmrmrdHeader:
    base = header(encoded_matrix=(*SHAPE, 1), recon_matrix=(*SHAPE, 1), recon_fov_mm=(400.0, 150.0, 5.0))
    plain = {"patient_id": PATIENT, "patient_position": "HFS", "protocol_name": "gre", "texts": TEXTS}
    return replace(base, **{**plain, "field_strength_t": 2.89362, "resonance_frequency_hz": 123182813, **changes})


def certificate_of(level: str) -> dict[str, JsonValue]:
    reasons = [] if level == "good" else ["a test says so"]
    return {"status": "converged", "verdict": {"level": level, "reasons": reasons, "facts": {}}, "labels": {"slice": 0}}


def spots(shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    """10,000 at [n_y // 2, n_x // 2], 7,000 three rows further, 5,000 two columns further."""
    image = np.zeros(shape, np.float32)
    y, x = shape[0] // 2, shape[1] // 2
    image[y, x], image[y + 3, x], image[y, x + 2] = 10_000, 7_000, 5_000
    return image


def write_result(
    path: Path,
    geometries: list[Geometry | None],
    *,
    level: str = "good",
    head: IsmrmrdHeader | None = None,
    shape: tuple[int, int] = SHAPE,
    scale: float = 1.0,
) -> Path:
    provenance: dict[str, JsonValue] = {
        "software": {"mrisps": "0.1.0", "commit": None},
        "recipe": {"name": "multicoil", "sha256": "ab" * 32},
        "weights": {"name": "w", "sha256": "cd" * 32},
        "input": {"name": f"{NAME}.h5", "sha256": "ef" * 32},
        "times": {"started": "2024-05-17T22:40:00+00:00"},
        "machine": {"system": "host of St Elsewhere"},
    }
    with ResultWriter(
        path, len(geometries), provenance=provenance, header=clinical_header() if head is None else head
    ) as writer:
        for index, geometry in enumerate(geometries):
            image = np.float32(scale) * spots(shape)
            parts = {"smooth": image / 2, "sparse": image / 2 - np.float32(1000 * scale), "cost_map": image + index}
            writer.write_slice(index, image, parts, certificate_of(level), geometry)
    return path


def tool(name: str) -> str:
    """The path of a Debian program; the test is skipped where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name} is not installed")
    return found


def errors_of(path: Path) -> list[str]:
    """Lines with which dciodvfy (dicom3tools) finds fault."""
    done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, timeout=60, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
