"""Who may approve: whoever is named; where nobody is, whoever Airflow let, and never nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from airloop.approval import ApprovalError, may_approve, require_approver
from airloop.settings import Settings


@pytest.mark.parametrize(
    ("approvers", "who", "may"),
    [
        (("ada", "grace"), "ada", True),
        (("ada", "grace"), "charles", False),
        (("ada",), "Ada", False),
        (("ada",), "", False),
        ((), "charles", True),
        ((), "", False),
    ],
)
def test_who_may(tmp_path: Path, approvers: tuple[str, ...], who: str, may: bool) -> None:
    settings = Settings(state_dir=tmp_path, approvers=approvers)
    assert may_approve(settings, who) == may
    if may:
        require_approver(settings, who, "version 7")
    else:
        with pytest.raises(ApprovalError, match="version 7 to be approved"):
            require_approver(settings, who, "version 7")
