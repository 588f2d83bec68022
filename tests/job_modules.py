"""The modules that the DAGs' tasks name as their jobs.

Belongs here: finding them. Does not belong here: what is asked of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from airloop.settings import REPOSITORY

BEGINNINGS = ("airloop.", "spark_jobs.", "feature_repo.", "serving.")


def job_modules() -> list[str]:
    """Each once, in order."""
    return sorted(name for name in set(_named()) if _is_module(name))


def _is_module(name: str) -> bool:
    """Or else the name of something in a span or a log."""
    path = f"{name.replace('.', '/')}.py"
    return (REPOSITORY / "src" / path).is_file() or (REPOSITORY / path).is_file()


def _named() -> Iterator[str]:
    for folder in ("dags", "plugins/airloop_airflow"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    for value in (*node.args, *(keyword.value for keyword in node.keywords)):
                        if isinstance(value, ast.Constant) and str(value.value).startswith(BEGINNINGS):
                            yield value.value
