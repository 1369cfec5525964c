"""`mrisps train`: learn weights from images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from mrisps.atomic import write_text
from mrisps.cli.common import UsageError, memory_errors, note, result, usage_errors
from mrisps.cli.files import make_folder
from mrisps.cli.options import (
    DeviceOptions,
    Overwrite,
    SetValues,
    complete_training,
    complete_weights,
    option,
    parsed_changes,
)
from mrisps.cli.terminal import Display, time_left
from mrisps.errors import FileError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter as Board

    from mrisps.bilevel import StepReport, TrainingState, ValidationReport
    from mrisps.model import SmoothPlusSparse

__all__ = ["train"]

LOG_HEADER = "step,loss,psnr,validation_psnr,iterations,residual,adjoint_iterations,adjoint_residual,skipped,seconds\n"


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a training recipe, or a recipe file.",
            autocompletion=complete_training,
        ),
    ],
    data: Annotated[
        list[Path],
        option(
            "--data PATH",
            "Image or folder to train on (PNG, TIFF, NPY, fully sampled fastMRI HDF5; colour becomes grey). Can be repeated.",
        ),
    ],
    options: DeviceOptions,
    output: Annotated[Path, option("--output DIR", "Folder for weights, checkpoint and log.")],
    validation: Annotated[
        list[Path] | None,
        option(
            "--validation PATH",
            "Images that are not trained on: the best weights are chosen by them. Can be repeated. Without: the last weights.",
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Take the files of this manifest below --data: the split 'train' to train on, 'val' for validation.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        option(
            "--start NAME|FILE",
            "Weights to start from, for recipes with start='weights': a name (see `mrisps weights`), or a file.",
            complete=complete_weights,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        option("--exclude TEXT", "Leave out training images whose name contains this. Can be repeated."),
    ] = None,
    resume: Annotated[bool, option("--resume", "Go on from DIR/NAME.checkpoint.safetensors.")] = False,
    tensorboard: Annotated[
        Path | None, option("--tensorboard DIR", "Also write scalars for TensorBoard (pip install 'mrisps[train]').")
    ] = None,
    changes: SetValues = None,
    overwrite: Overwrite = False,
) -> None:
    """Learn weights from clean images.

    Every step measures crops anew (noise, masks), reconstructs them, and differentiates through the minimiser. Written to DIR:
    NAME.safetensors, the weights with the best validation PSNR so far, and NAME.checkpoint.safetensors, from which --resume
    goes on bit by bit, both at every checkpoint; NAME.csv, with a line for every step and for every validation.

    Several GPUs or processes: `torchrun --nproc-per-node N -m mrisps train ...` shares each batch among them.

    Exit code 0: trained. 1: training stopped with an error, and the checkpoint is kept. 2: the command is wrong. Ctrl-C stops the
    training; --resume goes on from the last checkpoint.
    """
    from mrisps.bilevel import join_world, own_device
    from mrisps.io.manifest import Manifest
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import load_recipe
    from mrisps.settings import with_values
    from mrisps.training.run import TrainRecipe, prepare, run_training

    with usage_errors():
        chosen = with_values(load_recipe(recipe, TrainRecipe), parsed_changes(changes))
        weights_file = output / f"{chosen.name}.safetensors"
        checkpoint = output / f"{chosen.name}.checkpoint.safetensors"
        log_file = output / f"{chosen.name}.csv"
        if resume and not checkpoint.exists():
            raise UsageError(f"--resume: there is no {checkpoint}")
        if not (resume or overwrite):
            for path in (weights_file, checkpoint):
                if path.exists():
                    raise UsageError(f"{path}: exists already; use --resume to go on or --overwrite to begin anew")
        place = own_device(options.checked_device())
        model = None if start is None else SmoothPlusSparse.load(start)
        listed = None if manifest is None else Manifest.read(manifest)
        prepared = prepare(
            chosen, data, validation or [], start=model, exclude=exclude or [], manifest=listed, device=place
        )
    make_folder(output)

    def save_if_good(state: "TrainingState") -> None:
        if state.best_psnr is not None or not prepared.validation:
            save_best(state)

    def save_best(state: "TrainingState") -> "SmoothPlusSparse":
        best = state.best_model(prepared.model)
        best.save(weights_file, source=f"mrisps recipe {chosen.name} {chosen.sha256()[:12]}, step {state.best_step}")
        return best

    with join_world(place) as world:
        leader = world.rank == 0
        if leader:
            if not resume:  # else a --resume before the first checkpoint would go on with the old training
                checkpoint.unlink(missing_ok=True)
            for error in prepared.skipped:
                note(f"skipped: {error}")
            note(
                f"{chosen.name}: {len(prepared.images)} images to train on, {len(prepared.validation)} for validation, "
                f"{len(prepared.skipped)} skipped"
            )
        with (
            _Log(log_file if leader else None, chosen.train.n_steps, tensorboard, resume) as log,
            memory_errors(options.device),
        ):
            state = run_training(
                prepared,
                checkpoint=checkpoint,
                resume=resume,
                world=world,
                on_step=log.step,
                on_validation=log.validation,
                on_checkpoint=save_if_good,
            )
        if not leader:
            return
        best = save_best(state)
        psnr = (
            "" if state.best_psnr is None else f", validation PSNR {state.best_psnr:.2f} dB at step {state.best_step}"
        )
        skipped = f", {state.n_skipped} steps skipped" if state.n_skipped else ""
        result(f"{weights_file}: {state.step} steps{psnr}{skipped}, sha256 {best.fingerprint()}")


class _Log(Display):
    """Progress; and a line of CSV for every step, and scalars for TensorBoard. A process that does not lead is silent."""

    def __init__(self, path: Path | None, n_steps: int, tensorboard: Path | None, append: bool) -> None:
        super().__init__()
        self._path, self._n_steps, self._append = path, n_steps, append
        self._board: Board | None = None
        self._psnr = ""
        self._first: int | None = None
        if path is not None and tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                needed = "needs the package tensorboard (pip install 'mrisps[train]')"
                raise UsageError(f"--tensorboard: {needed}") from error
            self._board = SummaryWriter(tensorboard)

    def __enter__(self) -> Self:
        if self._path is None:
            return self
        if not (self._append and self._path.exists()):
            write_text(self._path, LOG_HEADER)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._board is not None:
            self._board.close()

    def step(self, report: "StepReport") -> None:
        """Take note of a step."""
        if self._path is None:
            return
        if self._first is None:
            self._first = report.step
            if self._append:
                self._forget_from(report.step)
        self._write(
            f"{report.step},{report.loss:.8g},{report.psnr:.4f},,{report.iterations},{report.residual:.2e},"
            f"{report.adjoint_iterations},{report.adjoint_residual:.2e},{int(report.skipped)},{report.seconds:.3f}"
        )
        n_here, n_wanted = report.step - self._first + 1, self._n_steps - self._first + 1
        left = time_left(self.seconds(), n_here, n_wanted)
        state = f"loss {report.loss:.3e}  PSNR {report.psnr:.2f} dB{self._psnr}  {left}"
        if report.skipped:
            self.say(f"step {report.step}/{self._n_steps}: {state}  SKIPPED")
        self.show("training", f"step {report.step}/{self._n_steps}  {state}", report.step, self._n_steps)
        scalars = {"loss": report.loss, "psnr": report.psnr, "adjoint_residual": report.adjoint_residual}
        self._scalars({f"train/{name}": value for name, value in scalars.items()}, report.step)

    def validation(self, report: "ValidationReport") -> None:
        """Take note of a look at the validation images."""
        if self._path is None:
            return
        self._psnr = f"  validation {report.psnr:.2f} dB"
        self._write(f"{report.step},,,{report.psnr:.4f},,,,,,")
        if not self.is_drawn:
            self.say(f"step {report.step}: validation PSNR {report.psnr:.3f} dB{' (best)' if report.is_best else ''}")
        self._scalars({"validation/psnr": report.psnr}, report.step)

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _forget_from(self, step: int) -> None:
        """Drop the lines that a killed training wrote after its last checkpoint: their steps are done again."""
        assert self._path is not None
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        done = {str(number) for number in range(step)}
        kept = [line for line in lines if line.partition(",")[0] in done]
        write_text(self._path, LOG_HEADER + "".join(f"{line}\n" for line in kept))

    def _write(self, line: str) -> None:
        assert self._path is not None
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror or error}") from error
