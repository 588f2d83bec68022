"""Writes a deployment's settings file from its stacks' outputs: `python
deploy/aws/settings_from_outputs.py FILE`.

FILE is what `cdk deploy --outputs-file` wrote. The result, on standard output, is
`deploy/profiles/aws.toml` with what the account adds; name it in AIRLOOP_SETTINGS_FILE. It holds no
password: that of redis_connection is in a mounted secret (`AIRLOOP_SECRETS_DIR`), PostgreSQL's are in the
file that PGPASSFILE names; both are in Secrets Manager.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).resolve().parents[1] / "profiles" / "aws.toml"
_PREFIX = "Setting"


def settings_of(outputs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The profile's settings and those among `outputs`, by name.

    Raises `ValueError` when no stack has any.
    """
    found = {
        _snake(name.removeprefix(_PREFIX)): value
        for stack in outputs.values()
        for name, value in stack.items()
        if name.startswith(_PREFIX)
    }
    if not found:
        raise ValueError(
            f"expected outputs called {_PREFIX}...; found {sorted(outputs)} without any. "
            "Next: deploy the stack of services, with --outputs-file."
        )
    if "compute" in found:
        found["compute"] = json.loads(found["compute"])
    return {**tomllib.loads(PROFILE.read_text("utf-8")), **found}


def as_toml(settings: Mapping[str, Any]) -> str:
    """`settings` as TOML: what is plain first, then a table for each place where jobs run."""
    lines = [
        f"{name} = {_value(value)}" for name, value in settings.items() if not isinstance(value, Mapping)
    ]
    for name, tables in settings.items():
        for key, table in tables.items() if isinstance(tables, Mapping) else ():
            lines += [
                "",
                f"[{name}.{key}]",
                *(f"{field} = {_value(value)}" for field, value in table.items()),
            ]
    return "\n".join(lines) + "\n"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _value(value: Any) -> str:
    """JSON's strings, numbers, lists and booleans are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def main() -> int:
    """Print the file; returns 1 and says why when the outputs hold no settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outputs", type=Path, help="JSON file of `cdk deploy --outputs-file`")
    flags = parser.parse_args()
    try:
        print(as_toml(settings_of(json.loads(flags.outputs.read_text("utf-8")))), end="")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
