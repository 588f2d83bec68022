"""What became of each fault, as a table and as one line of JSON.

Belongs here: the outcomes and how they are shown. Does not belong here: making faults.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table


class Outcome(NamedTuple):
    """One fault."""

    fault: str
    while_running: str
    outcome: Literal["survived", "stopped", "lost", "not tested"]
    """`stopped`: the run ended with an alert that says what to do, and went on after that was done."""
    seconds: float
    """From the fault until the task had succeeded and every service was well."""
    tries: int
    says: str = ""
    """What a person is told."""


def report(
    outcomes: Sequence[Outcome], console: Console, file: Path | None, further: Mapping[str, object]
) -> int:
    """Print the table and a line of JSON, write the table to `file`; 0 when nothing was lost or left out."""
    table = Table("fault", "while", "outcome", "seconds", "tries", "says")
    lines = ["| fault | while | outcome | seconds | tries | says |", "|---|---|---|---|---|---|"]
    for item in outcomes:
        cells = (
            *(item.fault, item.while_running, item.outcome),
            *(f"{item.seconds:.1f}", str(item.tries), item.says),
        )
        table.add_row(*cells)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    console.print(table)
    if file is not None:
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    named = {
        kind: [item.fault for item in outcomes if item.outcome == kind] for kind in ("lost", "not tested")
    }
    seconds = [item.seconds for item in outcomes if item.outcome in ("survived", "stopped")]
    line = {
        "faults": len(outcomes),
        "survived": sum(item.outcome == "survived" for item in outcomes),
        "stopped": sum(item.outcome == "stopped" for item in outcomes),
        "lost": len(named["lost"]),
        "not_tested": named["not tested"],
        "seconds_to_recover": {
            "median": round(statistics.median(seconds), 1) if seconds else None,
            "max": max(seconds, default=None),
        },
        **further,
    }
    print(json.dumps(line))
    return 0 if not named["lost"] and not named["not tested"] and outcomes else 1
