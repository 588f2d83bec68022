"""Where the decisions of a rollout are kept, and reading them.

Belongs here: the folder of a rollout and its files. Does not belong here: deciding, or how it is shown
(`serving`).
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from airloop.references import StageDecision
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase


def report_folder(settings: Settings, spec: UseCase, run: str) -> Path:
    """Where the decisions and the page of the rollout by `run` are."""
    return settings.reports_dir / spec.name / "rollouts" / re.sub(r"[^A-Za-z0-9_.-]", "_", run)


def decisions(folder: Path) -> list[StageDecision]:
    """Each stage's last decision, in the order of the stages; what cannot be read is left out."""
    found = []
    for path in folder.glob("*.json"):
        try:
            found.append(StageDecision.model_validate_json(path.read_text("utf-8")))
        except (ValidationError, OSError):
            continue
    return sorted(found, key=lambda item: item.until)
