"""Small valid raw files, and damaged copies of them, for the tests of the readers."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mrisps.io.ismrmrd_header import IsmrmrdHeader

N_COILS, N_Y, N_X = 3, 16, 12
NOISE, CALIBRATION, BOTH = 1 << 18, 1 << 19, 1 << 20


def normal(shape: Sequence[int], seed: int = 0) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@dataclass
class RawLine:
    """One acquisition of an ISMRMRD file; `head` and `idx` override its defaults."""

    samples: NDArray[np.complex64]  # (coil, sample)
    head: Mapping[str, object] = field(default_factory=dict)
    idx: Mapping[str, int] = field(default_factory=dict)
    n_floats: int | None = None  # another length of the data


def header(**changes: object) -> IsmrmrdHeader:
    values: dict[str, object] = {
        "encoded_matrix": (N_Y, N_X, 1),
        "recon_matrix": (N_Y // 2, N_X, 1),
        "encoded_fov_mm": (400.0, 150.0, 5.0),
        "recon_fov_mm": (200.0, 150.0, 5.0),
        "line_limits": (0, N_X - 1, N_X // 2),
        "n_coils": N_COILS,
    }
    return IsmrmrdHeader(**(values | changes))  # type: ignore[arg-type]  # of the test


def lines_of(
    kspace: NDArray[np.complex64], lines: Sequence[int], *, head: Mapping[str, object] | None = None, **idx: int
) -> list[RawLine]:
    """Acquisitions of the columns of (coil, y, x) k-space whose line numbers are their columns."""
    return [RawLine(kspace[:, :, line], dict(head or {}), {"kspace_encode_step_1": line, **idx}) for line in lines]


def write_mrd(path: Path, lines: Sequence[RawLine], head: IsmrmrdHeader | bytes | None = None) -> Path:
    """Acquisitions, as the package ismrmrd lays them out, without any check."""
    from ismrmrd.hdf5 import acquisition_dtype

    records = np.zeros(len(lines), acquisition_dtype)
    for index, line in enumerate(lines):
        n_coils, n_samples = line.samples.shape
        values: dict[str, object] = {
            "version": 1,
            "number_of_samples": n_samples,
            "active_channels": n_coils,
            "available_channels": n_coils,
            "center_sample": n_samples // 2,
            "sample_time_us": 5.0,
            "read_dir": (1, 0, 0),
            "phase_dir": (0, 1, 0),
            "slice_dir": (0, 0, 1),
            **line.head,
        }
        for name, value in values.items():
            records["head"][name][index] = value
        for name, count in line.idx.items():
            records["head"]["idx"][name][index] = count
        floats = np.ascontiguousarray(line.samples).view(np.float32).reshape(-1)
        records["data"][index] = floats if line.n_floats is None else np.resize(floats, line.n_floats)
        records["traj"][index] = np.zeros(0, np.float32)
    text = head if isinstance(head, bytes) else (head or header()).to_xml()
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=records, maxshape=(None,), chunks=True)
        file.create_dataset("dataset/xml", data=np.asarray([text], object), dtype=h5py.special_dtype(vlen=bytes))
    return path


PROTOCOL = """<XProtocol>
<ParamLong."iRoFTLength">  {{ {n_y}  }}
<ParamLong."iPEFTLength">  {{ {n_x}  }}
### ASCCONV BEGIN ###
tProtocolName	=	"gre"
sKSpace.lBaseResolution	=	{n_base}
sKSpace.lPhaseEncodingLines	=	{n_x}
sKSpace.ucDimension	=	2
sKSpace.ucTrajectory	=	{trajectory}
sSliceArray.asSlice[0].dThickness	=	5.0
sSliceArray.asSlice[0].dPhaseFOV	=	150.0
sSliceArray.asSlice[0].dReadoutFOV	=	200.0
sRXSPEC.alDwellTime[0]	=	5000
### ASCCONV END ###
"""


def write_twix(
    path: Path,
    kspace: NDArray[np.complex64],
    *,
    is_vb: bool = False,
    flags: Mapping[int, Sequence[str]] | None = None,
    changes: Mapping[int, Mapping[str, int]] | None = None,
    trajectory: int = 1,
    end: bool = True,
) -> Path:
    """A Siemens file with the columns of (coil, y, x) k-space; flags and fields of single blocks can be set."""
    from mrisps.io.twix import twix_headers

    layout = twix_headers(is_vb)
    n_coils, n_y, n_x = kspace.shape
    text = PROTOCOL.format(n_y=n_y, n_x=n_x, n_base=n_y // 2, trajectory=trajectory).encode() + b"\n" * (
        12_000 if is_vb else 64
    )
    protocol = struct.pack("<II", 8 + 9 + len(text), 1) + b"Meas\0" + struct.pack("<I", len(text)) + text
    blocks = [protocol]
    for line in range(n_x + end):
        head: NDArray[np.void] = np.zeros(1, layout.block)
        if line == n_x:
            head["EvalInfoMask"] = 1 << layout.flags["ACQEND"]
            blocks += [head.tobytes(), bytes(160)]
            break
        head["SamplesInScan"], head["UsedChannels"] = n_y, n_coils
        head["CenterCol"], head["CenterLin"] = n_y // 2, n_x // 2
        head["Counter"]["Lin"] = line
        head["SliceData"]["Quaternion"] = (1, 0, 0, 0)
        head["EvalInfoMask"] = sum(1 << layout.flags[name] for name in (flags or {}).get(line, ()))
        for name, value in (changes or {}).get(line, {}).items():
            (head["Counter"] if name in ("Lin", "Sli", "Ave", "Par") else head)[name] = value
        if not is_vb:
            blocks.append(head.tobytes())
        for coil in range(n_coils):
            channel = head if is_vb else np.zeros(1, layout.channel)
            blocks += [channel.tobytes(), np.ascontiguousarray(kspace[coil, :, line]).tobytes()]
    measurement = b"".join(blocks)
    if is_vb:
        path.write_bytes(measurement)
    else:
        table = struct.pack("<IIIIQQ", 0, 1, 7, 8, 10_240, len(measurement)).ljust(10_240, b"\0")
        path.write_bytes(table + measurement)
    return path


DICOM_SHAPE = (10, 8)


def write_dicom(path: Path, index: int, series: str = "1.2.3", **changes: object) -> None:
    """One MR image of a stack with 4 mm between slices."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, f"1.2.3.{index + 1}"
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesDescription = series, "MR", "T1"
    dataset.Rows, dataset.Columns = DICOM_SHAPE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -10
    dataset.PixelSpacing, dataset.SliceThickness = [2, 1.5], 3
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]  # columns to the back, rows to the feet
    dataset.ImagePositionPatient = [-4 * index, 20, 30]
    dataset.PixelData = (np.arange(80, dtype=np.uint16) + 100 * index).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
