"""What the viewer of a page shows: panes with 16-bit pixels for each slice."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrisps.reports.pixels import encode

__all__ = ["FINE_LEVELS", "KNOWN", "Pane", "Viewer", "panes_of"]

Colours = Literal["grey", "signed", "heat", "error", "phase"]
FINE_LEVELS = 8191
"""Steps of images in the units of the input: fewer bits than noise, and less than a thousandth of white."""
_MEDIUM, _COARSE = 2047, 511


@dataclass(frozen=True)
class Pane:
    """One kind of image.

    Parameters
    ----------
    name
        Of the images, as in `Viewer.add`.
    title
        For people.
    about
        What it shows, in a sentence.
    group
        Panes of a group share one window.
    colours
        Of the values; ``"signed"`` is symmetric around 0.
    levels
        Steps between the smallest and the largest value of a slice.
    shown
        Seen when the page opens.
    of
        The pane is the difference of two others, which the page computes: signed, or its magnitude with other colours.
    """

    name: str
    title: str
    about: str = ""
    group: str = ""
    colours: Colours = "grey"
    levels: int = _MEDIUM
    shown: bool = False
    of: tuple[str, str] | None = None


KNOWN = (
    Pane("reference", "reference", "The reference image of the input", "image", levels=FINE_LEVELS, shown=True),
    Pane(
        "zero_filled",
        "zero-filled",
        "Magnitude of the image with zeros for what was not measured",
        "image",
        levels=FINE_LEVELS // 2,
        shown=True,
    ),
    Pane(
        "reconstruction",
        "reconstruction",
        "The reconstruction; its magnitude if it is complex",
        "image",
        levels=FINE_LEVELS,
        shown=True,
    ),
    Pane(
        "error",
        "error",
        "|reconstruction − reference|",
        colours="error",
        shown=True,
        of=("reconstruction", "reference"),
    ),
    Pane("smooth", "smooth part", "The part without the dictionary; its magnitude if it is complex", "image"),
    Pane("sparse", "sparse part", "What the dictionary added", colours="signed"),
    Pane("cost_map", "cost map", "Where the prior is surprised; dimensionless", colours="heat"),
    Pane("phase", "phase", "Phase of the reconstruction in radians", colours="phase", levels=_COARSE),
    Pane("coil_maps", "coil maps", "Magnitude of all coil maps side by side, every nth pixel of each", levels=_COARSE),
    Pane("spread", "spread", "Spread of the image, in its units", colours="heat"),
    Pane(
        "attention",
        "attention",
        "Where the attention lowered the thresholds: sum over the atoms of -log(threshold / own threshold)",
        colours="signed",
    ),
)
"""Panes by the names of data sets in result files; others are shown under their own names."""


def panes_of(names: Sequence[str]) -> tuple[Pane, ...]:
    """The panes for images of these names, those that are known first; with the error where there is a reference."""
    there = {*names, *(["error"] if {"reconstruction", "reference"} <= {*names} else [])}
    known = [pane for pane in KNOWN if pane.name in there]
    return (
        *known,
        *(Pane(name, name.replace("_", " "), colours="heat") for name in names if name not in {p.name for p in known}),
    )


@dataclass
class Viewer:
    """Images of slices, to be put into a page.

    Parameters
    ----------
    panes
        Kinds of images.
    item
        What the slices are called: ``"slice"``, ``"case"``.
    pair
        The two panes that swipe and blink begin with; by default the first two.
    pages, page
        (link, text) of all pages over which the slices are spread, and which of them this one is.
    """

    panes: Sequence[Pane]
    item: str = "slice"
    pair: tuple[str, str] | None = None
    pages: Sequence[tuple[str, str]] = ()
    page: int = 0
    first: int | None = None
    planes: list[str] = field(default_factory=list)
    _slices: list[dict[str, object]] = field(default_factory=list)
    _spreads: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(
        self,
        label: str,
        images: Mapping[str, NDArray[np.generic]],
        *,
        number: str = "",
        level: str = "",
        reasons: Sequence[str] = (),
    ) -> None:
        """Add a slice.

        Parameters
        ----------
        label
            For people.
        images
            Name of a pane -> (y, x), real or complex (its magnitude is shown); the panes that the slice has.
        number
            How a link names the slice: ``page.html#slice=NUMBER``.
        level, reasons
            The verdict on it.
        """
        placed: dict[str, tuple[float, ...]] = {}
        for pane in self.panes:
            image = images.get(pane.name)
            if image is None or pane.of is not None:
                continue
            plane = encode(np.abs(image) if np.iscomplexobj(image) else image, pane.levels)
            placed[pane.name] = (len(self.planes), *plane.shape, plane.offset, plane.step)
            self.planes.append(plane.text)
            self._spreads.setdefault(pane.name, []).append(plane.spread)
        for pane in self.panes:
            if pane.of is not None and all(images.get(name) is not None for name in pane.of):
                one, other = (
                    np.abs(images[name]) if np.iscomplexobj(images[name]) else images[name] for name in pane.of
                )
                if one.shape == other.shape:
                    error = np.abs(np.subtract(one, other, dtype=np.float64))
                    known = error[np.isfinite(error)]
                    top = float(np.percentile(known, 99.5)) if known.size else 1.0
                    self._spreads.setdefault(pane.name, []).append((-top if pane.colours == "signed" else 0.0, top))
        self._slices.append(
            {"label": label, "number": number, "level": level, "reasons": "; ".join(reasons), "planes": placed}
        )

    @property
    def json(self) -> str:
        """Everything but the planes, as JSON that is safe inside a ``script`` element."""
        windows: dict[str, tuple[float, float]] = {}
        for pane in self.panes:  # the panes of a group together
            (low, high), group = self._window(pane), pane.group or pane.name
            before = windows.get(group, (low, high))
            windows[group] = (min(low, before[0]), max(high, before[1]))
        names = [pane.name for pane in self.panes]
        facts = {
            "panes": [
                {
                    **{key: getattr(pane, key) for key in ("name", "title", "about", "colours", "shown", "of")},
                    "group": pane.group or pane.name,
                    "window": windows[pane.group or pane.name],
                }
                for pane in self.panes
            ],
            "slices": self._slices,
            "first": len(self._slices) // 2 if self.first is None else self.first,
            "item": self.item,
            "pair": self.pair or (names[0], names[min(1, len(names) - 1)]),
            "pages": self.pages,
            "page": self.page,
        }
        return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(facts, allow_nan=False))

    def _window(self, pane: Pane) -> tuple[float, float]:
        """What covers nine slices in ten: one that broke down does not darken the others."""
        spreads = np.array(self._spreads.get(pane.name) or [(0.0, 1.0)])
        low, high = (float(np.quantile(spreads[:, k], q)) for k, q in ((0, 0.1), (1, 0.9)))
        if pane.colours == "signed":
            high = max(-low, high)
            low = -high
        elif low > -0.3 * high and pane.colours in ("grey", "error"):
            low = 0.0
        return (low, high) if high > low else (low, low + 1.0)
