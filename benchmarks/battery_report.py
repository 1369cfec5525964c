"""The results of `battery.py` as a table, as the targets that are met or missed, and as a figure."""

import statistics
from dataclasses import dataclass
from pathlib import Path

OURS, OURS_TRUE_MAPS = "ours", "ours, true maps"
SCALES = (1e9, 1e15)
GROUPS = {
    "zero-filled": ("zero-filled",),
    "SigPy": ("SigPy CG-SENSE", "SigPy wavelet"),
    "BART 1 set": ("BART l2, 1 set", "BART wavelet, 1 set", "BART TV, 1 set"),
    "BART 2 sets": ("BART l2, 2 sets", "BART wavelet, 2 sets", "BART TV, 2 sets"),
    OURS: (OURS,),
    OURS_TRUE_MAPS: (OURS_TRUE_MAPS,),
}
PEER_GROUPS = ("SigPy", "BART 1 set", "BART 2 sets")
CLOCK = "BART wavelet, 2 sets"


@dataclass(frozen=True)
class Row:
    """What is known of one case: the best NRMSE of each group, and CPU seconds (BART's: wavelet, mean of the weights)."""

    case: str
    nrmse: dict[str, float]
    seconds_ours: float | None
    seconds_bart: float | None
    verdict: str | None
    scaled: tuple[tuple[float, str | None], ...]  # NRMSE and verdict with the input multiplied

    @property
    def best_peer(self) -> float:
        return min((self.nrmse[name] for name in PEER_GROUPS if name in self.nrmse), default=float("inf"))

    @property
    def ratio(self) -> float:
        return self.nrmse[OURS] / self.best_peer

    @property
    def is_bad(self) -> bool:
        """A user has to be told."""
        return self.ratio > 1.3 or self.nrmse[OURS] > 0.25


def rows(entries: list[dict[str, object]]) -> list[Row]:
    latest = {(entry["case"], entry["method"], entry["weight"]): entry for entry in entries}
    found = []
    for case in sorted({str(entry["case"]) for entry in entries}):
        mine = [entry for entry in latest.values() if entry["case"] == case]

        def of(names: tuple[str, ...], mine: list[dict[str, object]] = mine) -> list[dict[str, object]]:
            return [entry for entry in mine if entry["method"] in names]

        nrmse = {name: min(float(e["nrmse"]) for e in of(methods)) for name, methods in GROUPS.items() if of(methods)}
        ours, clocks = of((OURS,)), [float(entry["cpu_seconds"]) for entry in of((CLOCK,))]
        found.append(
            Row(
                case,
                nrmse,
                float(ours[0]["cpu_seconds"]) if ours else None,
                statistics.mean(clocks) if clocks else None,
                ours[0].get("verdict") if ours else None,
                tuple((float(e["nrmse"]), e.get("verdict")) for e in of(tuple(f"{OURS} x {x:g}" for x in SCALES))),
            )
        )
    return found


def table(found: list[Row]) -> str:
    """Markdown: every case, the medians, and how the targets are met."""
    heads = [*GROUPS, "ours / best peer", "s ours", "s BART", "verdict"]
    lines = ["| case | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]

    def number(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    for row in found:
        ratio = number(row.ratio, 2) if OURS in row.nrmse else "-"
        cells = [*(number(row.nrmse.get(name)) for name in GROUPS), ratio]
        cells += [number(row.seconds_ours, 1), number(row.seconds_bart, 1), row.verdict or "-"]
        lines.append(f"| {row.case} | " + " | ".join(cells) + " |")
    medians = [[row.nrmse[name] for row in found if name in row.nrmse] for name in GROUPS]
    ratios = [row.ratio for row in found if OURS in row.nrmse]
    times = [[s for row in found if (s := getattr(row, key)) is not None] for key in ("seconds_ours", "seconds_bart")]
    cells = [number(statistics.median(values) if values else None) for values in (*medians, ratios)]
    cells += [number(statistics.median(values) if values else None, 1) for values in times]
    lines.append("| **median** | " + " | ".join(cells) + " | |")
    return "\n".join([*lines, "", *summary([row for row in found if OURS in row.nrmse])])


def summary(found: list[Row]) -> list[str]:
    """The targets, one line each."""
    if not found:
        return ["ours has not been run"]

    def share(chosen: list[Row], of: list[Row]) -> str:
        percent = f"{100 * len(chosen) / len(of):.0f} %" if of else "-"
        return f"{len(chosen)} of {len(of)} ({percent})"

    def names(chosen: list[Row]) -> str:
        return ": " + ", ".join(row.case for row in chosen) if chosen else ""

    worst = max(found, key=lambda row: row.ratio)
    above = [row for row in found if row.ratio > 1.1]
    true_maps = [row for row in found if OURS_TRUE_MAPS in row.nrmse]
    near = [row for row in true_maps if row.nrmse[OURS] <= 1.3 * row.nrmse[OURS_TRUE_MAPS]]
    below = [row for row in found if row.nrmse[OURS] > row.nrmse.get("zero-filled", float("inf"))]
    timed_rows = [row for row in found if row.seconds_ours is not None and row.seconds_bart is not None]
    quick = [row for row in timed_rows if (row.seconds_ours or 0) <= (row.seconds_bart or 0)]
    judged = [row for row in found if row.verdict is not None]
    bad, fine = [row for row in judged if row.is_bad], [row for row in judged if not row.is_bad]
    hidden, alarms = [row for row in bad if row.verdict == "good"], [row for row in fine if row.verdict != "good"]
    lines = [
        f"- no higher than the best peer: {share([row for row in found if row.ratio <= 1], found)}",
        f"- worst ratio to the best peer: {worst.ratio:.2f} ({worst.case}); above 1.1 in {len(above)}{names(above)}",
        f"- at most 1.3 times ours with the true maps: {share(near, true_maps)}",
        f"- worse than zero-filled: {len(below)}{names(below)}",
        f"- no slower than BART (`ecalib -m2`, `pics -R W -i 100`): {share(quick, timed_rows)}",
        f"- above 1.3 times the best peer or above 0.25, yet `good`: {share(hidden, bad)}{names(hidden)}",
        f"- the others that are not `good`: {share(alarms, fine)}{names(alarms)}",
    ]
    scaled = [row for row in found if row.scaled]
    if scaled:
        off = max(abs(nrmse - row.nrmse[OURS]) / row.nrmse[OURS] for row in scaled for nrmse, _ in row.scaled)
        same = all(verdict == row.verdict for row in scaled for _, verdict in row.scaled)
        factors = " and ".join(f"{scale:g}" for scale in SCALES)
        lines.append(
            f"- times {factors} ({len(scaled)} cases): NRMSE differs by at most {off:.1e} of itself, "
            + ("the same verdict" if same else "ANOTHER VERDICT")
        )
    return lines


def figure(found: list[Row], path: Path) -> None:
    """Cases from the easiest to the hardest for the best peer; NRMSE, and CPU seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = sorted(found, key=lambda row: row.best_peer)
    drawn, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.2 + 0.19 * len(found)), sharey=True, width_ratios=(3, 1), layout="constrained"
    )
    looks = {
        "zero-filled": ("x", "0.6"),
        "SigPy": ("s", "tab:blue"),
        "BART 1 set": ("^", "tab:cyan"),
        "BART 2 sets": ("v", "tab:purple"),
        OURS: ("o", "tab:red"),
        OURS_TRUE_MAPS: ("|", "black"),
    }
    for name, (marker, colour) in looks.items():
        points = [(row.nrmse[name], place) for place, row in enumerate(found) if name in row.nrmse]
        if points:
            size = 42 if name == OURS else 26
            left.scatter(*zip(*points, strict=True), marker=marker, color=colour, s=size, label=name, zorder=3)
    for place, row in enumerate(found):
        if row.verdict not in (None, "good"):
            left.annotate(
                str(row.verdict), (row.nrmse[OURS], place), xytext=(6, -3), textcoords="offset points", fontsize=6
            )
    left.set_xscale("log")
    left.set_xticks(ticks := (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), map(str, ticks))
    left.xaxis.set_minor_formatter("")
    left.set_xlabel("NRMSE")
    left.set_yticks(range(len(found)), [row.case for row in found], fontsize=7)
    left.grid(alpha=0.3)
    left.legend(fontsize=7, loc="lower right")
    for key, name, colour in (("seconds_bart", CLOCK, "tab:purple"), ("seconds_ours", OURS, "tab:red")):
        points = [(s, place) for place, row in enumerate(found) if (s := getattr(row, key)) is not None]
        if points:
            right.scatter(*zip(*points, strict=True), color=colour, s=14, label=name)
    right.set_xscale("log")
    right.set_xlabel("CPU seconds, one thread")
    right.grid(alpha=0.3)
    right.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
