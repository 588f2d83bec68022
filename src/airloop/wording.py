"""Lists in sentences that people read on a phone.

Belongs here: how long a list may be. Does not belong here: what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 5) -> str:
    """`names` with commas between them; of more than `most`, how many are left out."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
