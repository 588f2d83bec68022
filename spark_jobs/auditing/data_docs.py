"""Great Expectations' Data Docs of one audit: a folder of static pages, whatever the outcome.

Belongs here: building and replacing that folder. Does not belong here: any validating, or showing the pages
(Airflow's UI does).

Great Expectations' own first page is empty without scripts from the internet, so ours comes before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

import great_expectations as gx
from great_expectations.core.batch import IDDict
from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)

FIRST_PAGE: Final = "audit.html"
STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:70rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3rem .8rem;text-align:left}"
    "li{margin:.5rem 0;overflow-wrap:anywhere}"
)


def build_data_docs(
    folder: Path,
    suites: Sequence[tuple[gx.ExpectationSuite, ExpectationSuiteValidationResult]],
    run: str,
    failures: Sequence[str] = (),
) -> Path:
    """Replace `folder` by the Data Docs of `suites` and their results; returns the first page.

    `run` names the audit on the pages; `failures` are the failed expectations in words. Pages appear whole
    or not at all.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        "audit",
        {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(aside)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    identifier = RunIdentifier(run_name=run, run_time=datetime.now(UTC))
    keys: list[ExpectationSuiteIdentifier | ValidationResultIdentifier] = []
    for suite, result in suites:
        context.suites.add(suite)
        keys.append(ExpectationSuiteIdentifier(name=suite.name))
        keys.append(
            ValidationResultIdentifier(
                expectation_suite_identifier=keys[-1],
                run_id=identifier,
                batch_identifier=IDDict({"table": suite.name}).to_id(),
            )
        )
        result.meta |= {
            "run_id": identifier,
            "expectation_suite_name": suite.name,
            "active_batch_definition": {
                "datasource_name": "clean",
                "data_connector_name": "branch",
                "data_asset_name": suite.name,
                "batch_identifiers": {"run": run},
            },
        }
        context.validation_results_store.set(keys[-1], result)
    context.build_data_docs(resource_identifiers=keys)
    (aside / FIRST_PAGE).write_text(_first_page(aside, suites, run, failures), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(folder)
    return folder / FIRST_PAGE


def _first_page(
    folder: Path,
    suites: Sequence[tuple[gx.ExpectationSuite, ExpectationSuiteValidationResult]],
    run: str,
    failures: Sequence[str],
) -> str:
    """What failed, in words, and a line for each table with the way to its page."""
    lines = []
    for suite, result in suites:
        (page,) = folder.glob(f"validations/{suite.name}/**/*.html")
        found = result.statistics
        lines.append(
            f'<tr><td><a href="{quote(page.relative_to(folder).as_posix())}">{escape(suite.name)}</a></td>'
            f"<td>{'passed' if result.success else 'failed'}</td>"
            f"<td>{found['successful_expectations']} of {found['evaluated_expectations']}</td></tr>"
        )
    failed = "".join(f"<li>{escape(failure)}</li>" for failure in failures)
    return (
        f'<!doctype html><meta charset="utf-8"><title>Audit {escape(run)}</title><style>{STYLE}</style>'
        f"<h1>Audit {escape(run)}</h1>"
        + (f"<h2>{len(failures)} expectations failed</h2><ul>{failed}</ul>" if failures else "<p>Passed.</p>")
        + f"<table><tr><th>table</th><th>outcome</th><th>expectations that hold</th></tr>{''.join(lines)}"
        '</table><p><a href="index.html">Great Expectations\' own index</a> (needs the internet)</p>'
    )
