"""`mrisps info`: what is in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, result
from mrisps.cli.options import ArrayOptions, option
from mrisps.errors import FileError

if TYPE_CHECKING:
    from mrisps.io.acquisition import Acquisition, Geometry
    from mrisps.io.arrays import ArrayLayout
    from mrisps.io.ismrmrd_header import IsmrmrdHeader
    from mrisps.io.result_file import ResultFile

__all__ = ["info"]

Facts = dict[str, object]

_LABEL_WIDTH = 14


def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="k-space, reconstruction, image, weights, or mask.")],
    arrays: ArrayOptions,
    as_json: Annotated[bool, option("--json", "Print JSON instead of text.")] = False,
) -> None:
    """Say what is in a file.

    Contents, shapes, encoding, and whether it is undersampled and how.

    Knows k-space of fastMRI and our own outputs (.h5), ISMRMRD (.h5, .mrd), Siemens (.dat) and BART (.cfl), k-space in arrays
    whose axes are stated (.npy, .npz, .mat), DICOM images, grey images and arrays (.png, .tif, .npy), the paper's slices (.npz),
    weights (.safetensors, the authors' .pth) and sampling masks (.json). Shapes are (y, x) in pixels, fields of view in mm.
    """
    if not path.exists():
        raise UsageError(f"{path}: does not exist")
    if not path.is_file():
        raise UsageError(f"{path}: is not a regular file")
    layout = arrays.layout()
    described = {"file": str(path), "size": f"{path.stat().st_size} bytes", **_describe(path, layout)}
    facts = {key: value for key, value in described.items() if value is not None and value not in ({}, [])}
    if as_json:
        typer.echo(json.dumps(facts, indent=2, allow_nan=False, default=str))
        return
    for key, value in facts.items():
        _print(key, value)


def _print(key: str, value: object) -> None:
    label = key.replace("_", " ").ljust(_LABEL_WIDTH)
    lines: list[str] = []
    if isinstance(value, Mapping):
        lines = [f"{name}: {inner}" for name, inner in value.items()]
    elif isinstance(value, list):
        lines = [str(inner) for inner in value]
    else:
        lines = str(value).splitlines() or [""]
    for index, line in enumerate(lines):
        result(f"{label if index == 0 else ' ' * _LABEL_WIDTH}{line}")


def _describe(path: Path, layout: "ArrayLayout | None") -> Facts:
    with path.open("rb") as stream:
        start = stream.read(132)
    suffix = path.suffix.lower()
    is_array = suffix in (".npy", ".npz", ".mat")
    stated = is_array and path.with_name(path.name + ".toml").is_file()
    if layout is not None or stated or suffix in (".dat", ".cfl", ".hdr"):
        return _kspace(path, layout)
    if not is_array and (start.startswith(b"\x89HDF\r\n\x1a\n") or suffix in (".h5", ".hdf5", ".mrd")):
        from mrisps.io.result_file import ResultFile

        return _result(path) if ResultFile.is_result(path) else _kspace(path, None)
    if start[128:] == b"DICM" or suffix == ".dcm":
        return _dicom(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _nifti(path)
    if suffix in (".safetensors", ".pth", ".pt"):
        return _weights(path)
    if is_array:
        return _arrays(path)
    if suffix in (".png", ".tif", ".tiff"):
        return _image(path)
    if suffix == ".json":
        return _mask(path)
    if suffix == ".py":
        raise FileError(path, "is a Python file; for a recipe use `mrisps recipes show`")
    known = "HDF5, twix (.dat), BART (.cfl), MAT, NPY, NPZ, DICOM, NIfTI, PNG, TIFF, weights (.safetensors, .pth)"
    raise FileError(path, f"is none of {known} or mask (.json)")


def _kspace(path: Path, layout: "ArrayLayout | None") -> Facts:
    """What every k-space file can say, with the middle slice as the example."""
    import numpy as np

    from mrisps.io.fastmri import FastmriFile
    from mrisps.io.open import open_kspace
    from mrisps.io.raw_file import RawFile

    with open_kspace(path, layout) as file:
        volume = isinstance(file, RawFile) and file.n_z > 1
        n_y, n_x, n_z = file.header.encoded_matrix if isinstance(file, RawFile) else (*file.shape, 1)
        facts: Facts = {
            "content": f"k-space, {file.format}",
            **({"volumes": len(file.images)} if isinstance(file, RawFile) and volume else {"slices": file.n_slices}),
            "coils": file.n_coils,
            "matrix": f"{n_y} x {n_x} (y: readout, x: phase encoding), "
            + (file.dtype if isinstance(file, FastmriFile) else "complex64")
            + (f", {n_z} partitions" if volume else ""),
        }
        if not volume:
            record = file.read_slice(file.n_slices // 2)
            place, noise, calibration = record.geometry, record.noise_scan, record.calibration
            counters = [f"{name} {number}" for name, number in record.labels.items() if number]
            n_lines = 0 if calibration is None else int(np.count_nonzero(calibration.any(axis=(0, 1))))
            oversampled = record.readout_oversampling != 1
            facts |= {
                **_sampling(record),
                "counters": counters and f"slice {record.slice_index} of the file is {', '.join(counters)}",
                "image": "real, the file states it" if record.image_is_real else "complex (not stated to be real)",
                "oversampling": f"{record.readout_oversampling:g} along y" if oversampled else None,
                "noise_scan": None if noise is None else f"{noise.shape[1]} samples a coil",
                "calibration": None if calibration is None else f"{n_lines} lines measured apart from the image",
                "place": place and f"{_place(place)} (left, back, head)",
            }
        fastmri = file if isinstance(file, FastmriFile) else None
        return {
            **facts,
            "contrast": file.contrast,
            **_encoding(file.header),
            "crop": file.recon_shape and f"{_by(*file.recon_shape)} is what the file asks for",
            "reference": fastmri and fastmri.target_name,
            "data_sets": fastmri and _data_sets(fastmri.layout()),
            "attributes": dict(file.attributes),
            "notes": list(file.notes),
        }


def _sampling(record: "Acquisition") -> Facts:
    """How much of a slice was acquired, and in which pattern."""
    from mrisps.sampling import SamplingMask
    from mrisps.sampling.describe import pattern_name

    stated = record.mask is not None
    mask = SamplingMask.from_array(record.acquired(), record.shape)
    unit = "columns" if mask.is_columns else "samples"
    verb = "acquired (mask in the file)" if stated else "non-zero (no mask in the file)"
    center = f", {mask.n_acs_lines} of them around the centre" if mask.is_columns else ""
    lines = [f"{mask.n_acquired} of {mask.pattern.size} {unit} are {verb}"]
    if mask.is_fully_sampled:
        return {"sampling": f"{lines[0]}: fully sampled"}
    lines[0] += f"{center}: acceleration {mask.realised_acceleration:.2f}"
    facts: Facts = {"sampling": lines[0], "pattern": pattern_name(mask)}
    n_empty = int((mask.array2d().any(axis=0) & ~(record.kspace != 0).any(axis=(0, 1))).sum())
    if stated and n_empty:
        facts["empty"] = f"{n_empty} of the columns that the mask calls acquired are zero in slice {record.slice_index}"
    return facts


def _data_sets(layout: Mapping[str, tuple[tuple[int, ...], str]]) -> Facts:
    return {name: f"{shape} {dtype}" for name, (shape, dtype) in layout.items()}


def _arrays(path: Path) -> Facts:
    """The variables of an array file; one that is an image, a mask, or a slice of the paper says more."""
    from mrisps.io.arrays import variables_of

    variables = variables_of(path)
    if path.suffix.lower() == ".npz" and {"kspace", "target", "mask_acc8", "mask_acc16"} <= variables.keys():
        return _paper_slice(path)
    if path.suffix.lower() == ".npy":
        shape, dtype = variables[""]
        if len(shape) == 2 and dtype in ("uint8", "uint16", "float16", "float32", "float64"):
            return _image(path)
        return {"content": "array", "shape": str(shape), "type": dtype, **_as_mask(path, shape)}
    hint = "if one is k-space, say what its axes are: --axes, --variable"
    return {"content": f"arrays; {hint}", "variables": _data_sets(variables) or "none that is numeric"}


def _by(*sizes: float) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _mm(fov: tuple[float, float, float] | None) -> str:
    return "" if fov is None else f" ({_by(*fov)} mm)"


def _place(place: "Geometry") -> str:
    at, through = (", ".join(f"{v:.4g}" for v in vector) for vector in (place.position_mm, place.slice_direction))
    return f"centre ({at}) mm, slice direction ({through})"


def _encoding(header: "IsmrmrdHeader | None") -> Facts:
    if header is None:
        return {}
    acceleration, field = header.acceleration, header.field_strength_t
    lines = [
        header.trajectory or "unknown trajectory",
        f"encoded {_by(*header.encoded_matrix)}{_mm(header.encoded_fov_mm)}",
        f"reconstructed {_by(*header.recon_matrix)}{_mm(header.recon_fov_mm)}",
    ]
    if acceleration not in (None, (1, 1)):
        mode = header.calibration_mode or "unknown"
        lines.append(f"parallel imaging {acceleration[0]} x {acceleration[1]}, calibration {mode}")
    return {"encoding": lines, "field": None if field is None else f"{field:g} T"}


def _dicom(path: Path) -> Facts:
    from mrisps.io.dicom import read_dicom_series

    volume = read_dicom_series(path)
    place = volume.geometries[0]
    return {
        "content": "DICOM image",
        "shape": f"{_by(*volume.pixels.shape[1:])} (y, x)",
        "values": f"{volume.pixels.min():.6g} to {volume.pixels.max():.6g}",
        "field_of_view": place and _mm(place.field_of_view_mm).strip(" ()"),
        "place": place and _place(place),
        "attributes": dict(volume.attributes or {}),
    }


def _nifti(path: Path) -> Facts:
    from mrisps.io.nifti import nifti_header

    header = nifti_header(path)
    return {
        "content": "NIfTI images",
        "shape": f"{_by(*header.shape)} voxels",
        "type": header.dtype,
        "voxels": f"{_by(*header.voxel_mm)} mm",
        "affine": header.affine.tolist() if header.affine is not None else "unknown",
    }


def _result(path: Path) -> Facts:
    """One of our outputs: what it says of itself, as far as that can be read."""
    from mrisps.io.result_file import ResultFile

    with ResultFile(path) as file:
        facts: Facts = {
            "content": "reconstruction in fastMRI's layout",
            "slices": file.n_slices,
            "matrix": f"{_by(*file.shape)} (y, x)",
            "contrast": file.attributes.get("acquisition"),
            **_encoding(file.header),
            "data_sets": _data_sets(file.layout()),
            "attributes": dict(file.attributes),
        }
        damaged: list[str] = []
        for read in (_provenance, _certificate):
            try:
                facts |= read(file)
            except FileError as error:
                damaged.append(f"{error.field}: {error.message}")
        return {**facts, "notes": damaged}


def _provenance(file: "ResultFile") -> Facts:
    facts: Facts = {}
    for key in ("input", "recipe", "weights", "software"):
        part = (file.provenance or {}).get(key)
        if isinstance(part, Mapping):
            names = part if key == "software" else ("name", "sha256")
            facts[key] = ", ".join(f"{name} {part[name]}" for name in names if name in part)
    return facts


def _certificate(file: "ResultFile") -> Facts:
    """Of each slice: how the solve ended, with which beta and lam (a recipe may have a rule for them), and the verdict."""
    from mrisps.reconstruction.verdict import verdict_of
    from mrisps.reports.facts import status_words

    lines, verdicts = [], []
    for index, entry in enumerate(file.certificates):
        ratio = entry.get("misfit_ratio")
        misfit = f", misfit over noise {ratio:.3g}" if isinstance(ratio, float) else ""
        used = [f", {name} {value:.4g}" for name in ("beta", "lam") if isinstance(value := entry.get(name), float)]
        facts = f"{entry.get('n_iterations')} iterations{misfit}{''.join(used)}"
        lines.append(f"slice {index}: {status_words(entry)}; {facts}")
        verdicts.append(f"slice {index}: {verdict_of(entry)}")
    return {"certificate": lines, "verdict": verdicts} if lines else {}


def _weights(path: Path) -> Facts:
    from mrisps.model import SmoothPlusSparse

    model = SmoothPlusSparse.load(path)
    config = model.config
    groups, exponent = f"groups of {config.group_size} x {config.group_size}", f"exponent {config.exponent:g}"
    return {
        "content": "weights of the smooth-plus-sparse model",
        "regulariser": f"{config.regulariser}, {exponent if config.regulariser == 'NCPR' else groups}",
        "patch": f"{config.patch_size} x {config.patch_size}",
        "atoms": f"{config.n_free_atoms} free, {config.n_synthesis_atoms} synthesis",
        "beta": float(model.beta.detach()),
        "lam": model.lam,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sha256": model.fingerprint(),
    }


def _image(path: Path) -> Facts:
    import numpy as np

    from mrisps.io.images import read_image

    image = read_image(path, color_to_grey=True)
    facts: Facts = {
        "content": "image",
        "shape": f"{image.shape[0]} x {image.shape[1]} (y, x)",
        "values": f"{image.min():.6g} to {image.max():.6g}, mean {image.mean():.6g}, as float32 (8-bit / 255, 16-bit / 65535)",
    }
    if path.suffix.lower() == ".npy" and np.isin(image, (0, 1)).all():
        facts |= _as_mask(path, image.shape)
    return facts


def _as_mask(path: Path, shape: tuple[int, ...]) -> Facts:
    """How it would sample, if it is a mask."""
    from mrisps.sampling import read_mask

    try:
        mask = read_mask(path, (1, shape[0]) if len(shape) == 1 else None)
    except FileError:
        return {}
    unit = "columns" if mask.is_columns else "samples"
    return {
        "as_a_mask": f"{mask.n_acquired} of {mask.pattern.size} {unit}: acceleration {mask.realised_acceleration:.2f}"
    }


def _paper_slice(path: Path) -> Facts:
    from mrisps.io.paper_slices import read_paper_slice

    record = read_paper_slice(path)
    n_empty = int((record.kspace == 0).all(axis=0).sum())
    return {
        "content": "slice of the paper (uncentred k-space); `mrisps convert-paper-slices` makes a fastMRI file of it",
        "matrix": f"{record.kspace.shape[0]} x {record.kspace.shape[1]} (y: readout, x: phase encoding), {record.kspace.dtype}",
        "sampling": f"{n_empty} of {record.kspace.shape[1]} columns are zero",
        "reference": f"target {record.target.shape[0]} x {record.target.shape[1]}",
        "masks": {
            f"acceleration {acceleration}": f"{int(mask.sum())} of {mask.size} columns: {mask.size / int(mask.sum()):.2f}"
            for acceleration, mask in record.masks.items()
        },
    }


def _mask(path: Path) -> Facts:
    from mrisps.sampling import read_mask

    return {"content": "sampling mask", "mask": read_mask(path).summary()}
