"""One reconstruction of the server: what the site allows, what the client wants, images as slices are done."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ismrmrd import Image

from mrisps.errors import MrispsError, SettingsError
from mrisps.io.dicom_writer import Mark
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.recipe import builtin_recipes, load_recipe, with_overrides
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.slice_result import SliceResult
from mrisps.server.images import ImageMaker, Pixels
from mrisps.server.measurement import Measurement, Parameters
from mrisps.server.messages import Limits, StreamError

__all__ = ["DEFAULT_NAMES", "Peer", "Site", "StoppedError", "Wishes", "serve_measurement"]

DEFAULT_NAMES = ("", "default", "openrecon")
"""Configurations that mean the default recipe."""

_PROGRESS_SECONDS = 10.0


class StoppedError(MrispsError):
    """The client has gone, time is up, or the server ends."""


class Peer(Protocol):
    """Who gets the images."""

    def send_image(self, image: Image) -> None:
        """Send an image."""

    def send_text(self, text: str) -> None:
        """Send a remark."""

    def check(self) -> None:
        """Raise `StoppedError` if nobody waits for the images any more."""

    def log(self, event: str, level: str = "info", **facts: str | float | bool | None) -> None:
        """Write down what happened."""


@dataclass(eq=False)
class Site:
    """What this server does and allows.

    Parameters
    ----------
    recipes
        Names or files of recipes that clients may ask for; the first is the default. Empty: all MRI recipes of the package, with
        ``multicoil`` as default. A name from the network is looked up among these and is never a path.
    weights
        Weights for all recipes; None: those of each recipe.
    device
        Where to compute.
    send_unusable
        Send images whose verdict is ``"unusable"``, marked.
    mark
        Burn the verdict into the pixels of images with this one or a graver one.
    limits
        What a stream may ask for.
    """

    recipes: Sequence[str] = ()
    weights: str | None = None
    device: str = "cpu"
    send_unusable: bool = False
    mark: Mark = "unusable"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        named = {Path(name).stem if name.endswith(".py") else name: name for name in self.recipes}
        if not named:
            others = [name for name in builtin_recipes() if load_recipe(name).task == "mri" and name != "multicoil"]
            named = {name: name for name in ("multicoil", *others)}
        self._sources = named
        self._runs: dict[str, Run] = {}
        self.solver = ThreadPoolExecutor(1, "mrisps-solver")
        """Computes one image at a time, always in the same thread: PyTorch keeps memory for every thread that it has seen."""
        self._loading = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Recipes that clients may ask for, the default first."""
        return tuple(self._sources)

    def run(self, name: str) -> Run:
        """The run of a recipe; loaded once.

        Raises
        ------
        MrispsError
            There is no such recipe here, or it cannot be loaded.
        """
        if name in DEFAULT_NAMES:
            name = self.names[0]
        if name not in self._sources:
            raise StreamError(f"configuration: expected one of {', '.join(self.names)}")
        with self._loading:
            if name not in self._runs:
                self._runs[name] = run_of(self._sources[name], "mri", weights=self.weights, device=self.device)
            return self._runs[name]


@dataclass(frozen=True)
class Wishes:
    """What a client may choose.

    Parameters
    ----------
    recipe
        Name.
    parts
        Also smooth part, sparse part and cost map.
    pixels
        Type of the pixels.
    overrides
        beta and lam, where they are given.
    """

    recipe: str
    parts: bool = False
    pixels: Pixels = "float"
    overrides: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, config: str, parameters: Parameters, names: Sequence[str]) -> "Wishes":
        """Read them from configuration and parameters.

        ``recipe`` of the parameters wins over the configuration. So does ``config``, where it names a recipe: for other servers it
        names a module.

        Raises
        ------
        MrispsError
            A value is wrong. Parameters that are unknown here are left alone: scanners send their own.
        """
        other = str(parameters.get("config", ""))
        name = str(parameters.get("recipe", other if other in names else config))
        parts = str(parameters.get("parts", "none")).lower()
        if parts not in ("all", "true", "none", "false"):
            raise StreamError("parameters: parts: expected all or none")
        pixels = {"float": "float", "short": "short"}.get(str(parameters.get("pixels", "float")))
        if pixels is None:
            raise StreamError("parameters: pixels: expected float or short")
        overrides = tuple((key, str(parameters[key])) for key in ("beta", "lam") if key in parameters)
        chosen: Pixels = "short" if pixels == "short" else "float"
        return cls(name, parts in ("all", "true"), chosen, overrides)


def serve_measurement(
    measurement: Measurement, site: Site, peer: Peer, *, clock: Callable[[], float] = time.monotonic
) -> int:
    """Reconstruct a measurement, and send each slice as soon as it is done.

    Returns
    -------
    int
        How many slices were sent.

    Raises
    ------
    MrispsError
        The measurement cannot be reconstructed; `StoppedError` where nobody waits for it.
    """
    begun = clock()
    wishes = Wishes.of(measurement.config, measurement.parameters, site.names)
    run = site.run(wishes.recipe)
    if wishes.overrides:
        try:
            run = replace(run, recipe=with_overrides(run.recipe, dict(wishes.overrides)))
        except SettingsError as error:
            raise StreamError(f"parameters: {error.key}: expected another value") from error
    source = measurement.open(site.limits)
    peer.send_text(f"{source.n_slices} slices, recipe {run.recipe.name}")
    record = {key: value for key, value in run.record(source).items() if key != "machine"}
    maker = ImageMaker(source.header, record, run.recipe.name, wishes.parts, wishes.pixels, site.mark)
    told = clock()

    def progress(position: int, n_slices: int, iteration: int, residual: float) -> None:
        nonlocal told
        peer.check()
        if clock() - told > _PROGRESS_SECONDS:
            told = clock()
            peer.send_text(f"slice {position + 1} of {n_slices}: iteration {iteration}, residual {residual:.1e}")

    n_sent, first_image = 0, None
    results = run.results(source, progress=progress)
    for position in range(source.n_slices):
        made = _computed(site, peer, results)  # the next slice waits its turn: others may have theirs before
        verdict = made.verdict
        sent = verdict.level != "unusable" or site.send_unusable
        if sent:
            for image in maker.images(made, position, source.head_of(made.index)):
                peer.send_image(image)
            first_image = clock() - begun if first_image is None else first_image
            n_sent += 1
        peer.send_text(f"slice {position + 1} of {source.n_slices}: {verdict}{'' if sent else '; not sent'}")
        peer.log(
            "slice",
            slice=made.index,
            verdict=verdict.level,
            reasons="; ".join(verdict.reasons),
            status=str(made.certificate["status"]),
            iterations=int(str(made.certificate["n_iterations"])),
            solver_seconds=round(float(str(made.certificate["seconds"])), 3),
            sent=sent,
        )
    peer.log(
        "done",
        recipe=run.recipe.name,
        recipe_sha256=run.recipe.sha256(),
        n_slices=source.n_slices,
        n_sent=n_sent,
        seconds_to_first_image=None if first_image is None else round(first_image, 3),
        seconds=round(clock() - begun, 3),
    )
    return n_sent


def _computed(site: Site, peer: Peer, results: Iterator[SliceResult]) -> SliceResult:
    """The next slice; whoever waits for it may go while others are computed."""
    future = site.solver.submit(next, results)
    told = time.monotonic()
    while not wait((future,), timeout=0.5).done:
        try:
            peer.check()
            if time.monotonic() - told > _PROGRESS_SECONDS and not future.running():
                told = time.monotonic()
                peer.send_text("waiting: other images are computed")
        except StoppedError:
            future.cancel()  # one that runs finds out by itself
            raise
    return future.result()
