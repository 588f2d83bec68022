"""The JSON schema of a verdict, for whoever reads `verdict.json` without this code.

    python -m airloop.verdict_schema [--check]

Belongs here: writing `docs/verdict.schema.json` from the document's type, and telling when it is behind. Does
not belong here: what the fields mean; their docstrings are the schema's descriptions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airloop.settings import REPOSITORY
from airloop.verdict import Verdict
from airloop.whole_files import write_whole

FILE: Final = REPOSITORY / "docs" / "verdict.schema.json"


def schema_text() -> str:
    """The schema, JSON Schema 2020-12, as its file has it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Verdict.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"


def is_current(path: Path = FILE) -> bool:
    """Whether `path` has the schema of this code."""
    return path.exists() and path.read_text("utf-8") == schema_text()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status, 1 when `--check` finds the file behind."""
    parser = argparse.ArgumentParser(description="Write the JSON schema of a verdict.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    if not parser.parse_args(argv).check:
        write_whole(FILE, schema_text())
    elif not is_current():
        print(f"{FILE.name} is behind src/airloop/verdict.py: run python -m airloop.verdict_schema")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
