"""Great Expectations' Data Docs of one audit: a folder of static pages, whatever the outcome.

Belongs here: building and replacing that folder. Does not belong here: any validating, or showing the pages
(Airflow's UI does).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import great_expectations as gx
from great_expectations.core.batch import IDDict
from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)


def build_data_docs(
    folder: Path, suites: Sequence[tuple[gx.ExpectationSuite, ExpectationSuiteValidationResult]], run: str
) -> Path:
    """Replace `folder` by the Data Docs of `suites` and their results; returns the first page.

    `run` names the audit on the pages. The pages appear whole or not at all.
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
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(folder)
    return folder / "index.html"
