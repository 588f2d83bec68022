"""A subject outside the tables: sample rows in reports, lines in logs, staged files in scratch.

Belongs here: which folders these are, masking text in place, removing what cannot be masked. Does not belong
here: the warehouse (`lakehouse`).

A text is masked byte for byte with asterisks where it stands, so that a process that still appends to the
file goes on undisturbed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from airloop.erasure.files import is_text, scan_file
from airloop.erasure.lakehouse import refuse_young
from airloop.erasure.traces import Traces
from airloop.lakehouse.files import files_under
from airloop.settings import Settings


def folders(settings: Settings) -> tuple[Path, ...]:
    """Where sample rows, log lines and staged records may stand."""
    return (
        settings.reports_dir,
        # A failed audit's event has its message, with sample rows.
        settings.lineage_events.parent,
        settings.state_dir / "logs",
        settings.state_dir / "airflow" / "logs",
        settings.scratch_dir,
        # Predictions that are not in their table yet; masked, a record lands all the same.
        settings.prediction_spool_dir,
        settings.outcome_spool_dir,
    )


def mentioning(settings: Settings, traces: Traces) -> Iterator[Path]:
    """The files there that mention the subject."""
    for folder in folders(settings):
        for path in files_under(folder):
            if scan_file(path, traces).exact:
                yield path


def erase_texts(settings: Settings, traces: Traces, grace_minutes: int) -> tuple[int, int]:
    """Mask the subject in texts and remove other files that hold it; returns (places masked, files removed).

    Raises `ErasureError` for a file that is no text and so young that a job may still be using it.
    """
    masked, others = 0, []
    for path in mentioning(settings, traces):
        if is_text(path):
            masked += _mask(path, traces)
        else:
            others.append(path)
    refuse_young({str(path): path.stat().st_mtime for path in others if path.exists()}, grace_minutes)
    for path in others:
        path.unlink(missing_ok=True)
    return masked, len(others)


def _mask(path: Path, traces: Traces) -> int:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        places = [(start, end) for start, end, kind in traces.places(data) if kind == "exact"]
        for start, end in places:
            data[start:end] = b"*" * (end - start)
        data.flush()
    return len(places)
