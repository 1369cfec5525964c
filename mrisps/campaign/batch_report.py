"""The report of a batch, from its ledger and the JSON beside each output."""

from collections.abc import Mapping
from pathlib import Path

from mrisps.atomic import write_text
from mrisps.campaign.batch_item import Entry
from mrisps.campaign.loop import JournalRecord
from mrisps.campaign.record import read_record_file, record_file
from mrisps.errors import MrispsError
from mrisps.reports.flags import RunFile, Thresholds
from mrisps.reports.html import render
from mrisps.reports.run import run_report

__all__ = ["write_report"]


def write_report(folder: Path, ledger: Mapping[str, JournalRecord], recipe_name: str, thresholds: Thresholds) -> Path:
    """Write ``report.html`` into an output folder; a FileError if the ledger is damaged or the page cannot be written."""
    files, failures = [], []
    for name, record in sorted(ledger.items()):
        entry = Entry.of(folder, name, record)
        if entry.state != "done":
            failures.append((name, entry.error or "was interrupted"))
            continue
        try:
            facts = read_record_file(record_file(folder / name))
        except MrispsError as error:
            failures.append((name, str(error)))
            continue
        files.append(RunFile(name, folder / name, facts, entry.seconds, entry.memory_bytes))
    page = folder / "report.html"
    write_text(page, render(run_report(files, failures, recipe_name, thresholds)))
    return page
