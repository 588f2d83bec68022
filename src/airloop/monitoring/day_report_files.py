"""Where the reports of days lie, and which are too old.

Belongs here: their folders. Does not belong here: making them (`day_report`, which imports what draws them).
"""

from __future__ import annotations

import shutil
from datetime import date, datetime
from pathlib import Path

from airloop.settings import Settings
from airloop.use_cases.spec import UseCase


def day_folder(settings: Settings, spec: UseCase, day: date) -> Path:
    """The folder of the reports of `day`."""
    return _folder(settings, spec) / day.isoformat()


def remove_day_reports_before(settings: Settings, spec: UseCase, moment: datetime) -> int:
    """Remove the reports of days before that of `moment`; how many."""
    removed = 0
    for folder in _folder(settings, spec).glob("????-??-??"):
        if folder.name < moment.date().isoformat():
            shutil.rmtree(folder)
            removed += 1
    return removed


def _folder(settings: Settings, spec: UseCase) -> Path:
    return settings.reports_dir / spec.name / "monitoring"
