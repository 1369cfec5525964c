"""`mrisps train`: learn weights from images."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.atomic import write_text
from mrisps.cli.common import UsageError, make_folder, memory_errors, note, printable, result, usage_errors
from mrisps.cli.options import Device, Overwrite, SetValues, checked_device, complete_weights, parsed_changes
from mrisps.errors import FileError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from torch.utils.tensorboard import SummaryWriter as Board

    from mrisps.bilevel import StepReport, TrainingState, ValidationReport
    from mrisps.model import SmoothPlusSparse

__all__ = ["train"]

LOG_INTERVAL = 10
LOG_HEADER = "step,loss,psnr,validation_psnr,iterations,residual,adjoint_iterations,adjoint_residual,skipped,seconds\n"


def _complete_recipe(incomplete: str) -> list[str]:
    from mrisps.reconstruction.recipe import builtin_recipes

    return [name for name in builtin_recipes(training=True) if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Name of a training recipe, or a recipe file.", autocompletion=_complete_recipe
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="PATH",
            help="Image or folder to train on (PNG, TIFF, NPY, fully sampled fastMRI HDF5; colour becomes grey). Can be repeated.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for weights, checkpoint and log.")],
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            "--validation",
            metavar="PATH",
            help="Images that are not trained on: the best weights are chosen by them. Can be repeated. Without: the last weights.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="NAME|FILE",
            help="Weights to start from, for recipes with start='weights': a name (see `mrisps weights`), or a file.",
            autocompletion=complete_weights,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="TEXT", help="Leave out training images whose name contains this. Can be repeated."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from DIR/NAME.checkpoint.safetensors.")] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Also write scalars for TensorBoard (pip install 'mrisps[train]')."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the processor. Default: PyTorch's.")
    ] = None,
    device: Device = "cpu",
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
    import torch

    from mrisps.bilevel import join_world, own_device
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import load_recipe
    from mrisps.settings import with_values
    from mrisps.training.run import TrainRecipe, prepare, run_training

    if threads is not None:
        torch.set_num_threads(threads)
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
        place = own_device(checked_device(device))
        model = None if start is None else SmoothPlusSparse.load(start)
        prepared = prepare(chosen, data, validation or [], start=model, exclude=exclude or [], device=place)
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
            memory_errors(device),
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


class _Log:
    """Shows progress on the terminal, and writes a line of CSV for every step, and scalars for TensorBoard."""

    def __init__(self, path: Path | None, n_steps: int, tensorboard: Path | None, append: bool) -> None:
        self._path, self._n_steps, self._append = path, n_steps, append
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._board: Board | None = None
        self._psnr = ""
        self._started = time.perf_counter()
        self._n_here = 0
        self._repeats = append
        if path is not None and tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UsageError(
                    "--tensorboard: needs the package tensorboard (pip install 'mrisps[train]')"
                ) from error
            self._board = SummaryWriter(tensorboard)

    def __enter__(self) -> "_Log":
        if self._path is None:
            return self
        if not (self._append and self._path.exists()):
            write_text(self._path, LOG_HEADER)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                TextColumn("left:"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                refresh_per_second=2,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._n_steps, state="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self, report: "StepReport") -> None:
        """Take note of a step."""
        if self._path is None:
            return
        self._n_here += 1
        if self._repeats:
            self._forget_from(report.step)
            self._repeats = False
        self._write(
            f"{report.step},{report.loss:.8g},{report.psnr:.4f},,{report.iterations},{report.residual:.2e},"
            f"{report.adjoint_iterations},{report.adjoint_residual:.2e},{int(report.skipped)},{report.seconds:.3f}"
        )
        state = f"loss {report.loss:.3e}  PSNR {report.psnr:.2f} dB{self._psnr}{'  SKIPPED' if report.skipped else ''}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=report.step, state=printable(state))
        elif report.step % LOG_INTERVAL == 0 or report.skipped:
            each = (time.perf_counter() - self._started) / self._n_here
            left = each * (self._n_steps - report.step)
            note(
                f"step {report.step}/{self._n_steps}: {state}, adjoint residual {report.adjoint_residual:.1e}, "
                f"{each:.1f} s a step, {left / 60:.0f} min left"
            )
        if self._board is not None:
            self._scalar("train/loss", report.loss, report.step)
            self._scalar("train/psnr", report.psnr, report.step)
            self._scalar("train/adjoint_residual", report.adjoint_residual, report.step)

    def validation(self, report: "ValidationReport") -> None:
        """Take note of a look at the validation images."""
        if self._path is None:
            return
        self._psnr = f"  validation {report.psnr:.2f} dB"
        self._write(f"{report.step},,,{report.psnr:.4f},,,,,,")
        if self._bar is None:
            note(f"step {report.step}: validation PSNR {report.psnr:.3f} dB{' (best)' if report.is_best else ''}")
        if self._board is not None:
            self._scalar("validation/psnr", report.psnr, report.step)

    def _scalar(self, name: str, value: float, step: int) -> None:
        assert self._board is not None
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
