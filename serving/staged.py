"""Where a version's files are, for the model server and for gateways.

Belongs here: paths under the models folder. Does not belong here: putting files there (`serving.rollout`).
"""

from __future__ import annotations

from pathlib import Path


def explanation_file(models_dir: Path, name: str, version: int) -> Path:
    """The rows that explanations of `version` of model `name` compare with.

    Beside the versions' folders, where the model server does not look: what is in those is signed as a whole.
    """
    return models_dir / name / "explanations" / f"{version}.json"
