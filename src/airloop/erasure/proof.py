"""The proof of an erasure: every file is decoded, whatever refers to it, and nothing of the subject is left.

Belongs here: what is scanned, and refusing to call anything else a proof. Does not belong here: deleting.

Scanned: all files of the warehouse (Parquet column by column, Avro manifests with their bounds value by
value, everything else as bytes), and reports, logs and scratch. Not scanned: MLflow's artifacts and the
models, which the spec's `erasure.models` is about; Airflow's database, which holds the run's configuration;
the source itself.
"""

from __future__ import annotations

from collections import Counter

from airloop.erasure import ErasureError
from airloop.erasure.files import Scan, scan_file, scan_stored
from airloop.erasure.texts import folders
from airloop.erasure.traces import Traces
from airloop.lakehouse.files import files_under, warehouse_files
from airloop.references import ErasureProof
from airloop.settings import Settings

SHOWN = 5
"""Places that an error names."""


def scan_everything(settings: Settings, traces: Traces) -> Scan:
    """Scan the warehouse and the folders of texts."""
    scan = Scan()
    for file in warehouse_files(settings):
        scan.merge(scan_stored(settings, file, traces))
    for folder in folders(settings):
        for path in files_under(folder):
            scan.merge(scan_file(path, traces))
    return scan


def conclude(subject: str, scan: Scan, online_entries: int, accept_similar: bool) -> ErasureProof:
    """The proof that `scan` (files and online store together) amounts to.

    Raises `ErasureError` when anything was found, or when longer names contain the subject and nobody said
    that they are others'.
    """
    if scan.exact:
        raise ErasureError(
            expected="nothing of the subject",
            found=f"{scan.exact.total()} traces in {_shown(scan.exact)}",
            next_step="run the erasure again: a job may have written meanwhile. If it stays, name the column "
            "under erasure.tables or erasure.texts in the use case's spec",
        )
    if scan.similar and not accept_similar:
        raise ErasureError(
            expected="no name that contains the subject's",
            found=f"{scan.similar.total()} in {_shown(scan.similar)}",
            next_step="look at them: if they are other subjects', run again and accept similar names (the "
            "audit log keeps that); if they are the subject's, name the column under erasure.texts",
        )
    return ErasureProof(
        subject=subject,
        files_scanned=scan.files,
        values_scanned=scan.values,
        online_entries_scanned=online_entries,
        unreadable=len(scan.unreadable),
        similar=scan.similar.total(),
    )


def _shown(places: Counter[str]) -> str:
    names = sorted(places)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more places" if len(names) > SHOWN else "")
