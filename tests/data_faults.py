"""Breaks data and kills streams, and writes down what became of it: `python -m tests.data_faults`.

Belongs here: collecting what the fault tests and the kill tests recorded into `data_faults.json` and one line
of JSON. Does not belong here: the faults, the kills, or what is asserted about them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airloop.settings import load_settings
from airloop.whole_files import write_whole

FOLDER = Path(__file__).parent
TESTS = (FOLDER / "faults", FOLDER / "streams" / "test_kills.py")


class Recorder:
    """Keeps what each test recorded and whether it passed."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self.rows.append({**dict(report.user_properties), "passed": report.passed})

    def of(self, name: str) -> list[dict[str, Any]]:
        """What those tests recorded that recorded `name`."""
        return [row for row in self.rows if name in row]


def figures_of(recorder: Recorder) -> dict[str, int]:
    """The totals: a fault counts as caught when the expectation that is meant for it caught it."""
    faults, sound, kills = recorder.of("fault"), recorder.of("sound_day"), recorder.of("broker")

    def total(name: str) -> int:
        return sum(int(row.get(name, 0)) for row in kills)

    return {
        "injected": len(faults),
        "caught": sum(bool(row["passed"]) for row in faults),
        "sound_days": len(sound),
        "false_alarms": sum(not row["passed"] for row in sound),
        "kills": total("kills"),
        "messages": total("messages"),
        "lost": total("lost"),
        "duplicated": total("duplicated"),
        "misplaced": total("misplaced"),
    }


def _line(row: Mapping[str, Any]) -> str:
    caught_by = row["caught_by"] if row["passed"] else "NOT CAUGHT"
    return f"{row['fault']:36} {row.get('feed', ''):10} {caught_by}"


def main() -> int:
    """Run the tests; returns pytest's exit status, or 1 when a broker's kills are missing."""
    recorder = Recorder()
    flags = ["-q", "-m", "data_faults", *map(str, TESTS), *sys.argv[1:]]
    status = int(pytest.main(flags, plugins=[recorder]))
    figures = figures_of(recorder)
    path = load_settings().reports_dir / "data_faults.json"
    tables = {
        "faults": recorder.of("fault"),
        "sound": recorder.of("sound_day"),
        "kills": recorder.of("broker"),
    }
    write_whole(path, json.dumps({**figures, **tables}, indent=1))
    print("\n".join(map(_line, recorder.of("fault"))))
    for row in recorder.of("broker"):
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(f"table: {path}")
    print(json.dumps(figures))
    return status or int(not figures["kills"])


if __name__ == "__main__":
    sys.exit(main())
