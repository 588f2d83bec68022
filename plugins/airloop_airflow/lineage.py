"""Lineage events: what the OpenLineage listener is told about a job's task.

Belongs here: turning a job's datasets into OpenLineage's classes. Does not belong here: which datasets a job
touches (`airloop.lineage.events`), or where events go (the deployment's OpenLineage transport).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airloop.lineage.events import Dataset, touched
from airloop.lineage.parent import PARENT_ID, ROOT_PARENT_ID
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import BaseOperator

log = logging.getLogger(__name__)


def lineage_of(
    module: str, use_case_name: str | None, flags: Mapping[str, Any], document: Mapping[str, Any] | None
) -> OperatorLineage:
    """The inputs and outputs of the job `module`, with their versions; `document` is its result, if any."""
    # Imported here: they take seconds, and only the listener needs them, never the parsing of a DAG.
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    if use_case_name is None:
        return OperatorLineage()
    found = touched(load_settings(), use_case(use_case_name), module, flags, document)
    inputs = [InputDataset(item.namespace, item.name, facets=_facets(item)) for item in found.inputs]
    outputs = []
    for item in found.outputs:
        written = OutputDataset(item.namespace, item.name, facets=_facets(item))
        if item.rows is not None:
            written.outputFacets = {
                "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=item.rows
                )
            }
        outputs.append(written)
    return OperatorLineage(inputs=inputs, outputs=outputs)


def parent_environment(operator: BaseOperator, instance: Any) -> dict[str, str]:
    """What tells a task's job whose child its own lineage events are; empty for a task without events."""
    from airflow.providers.openlineage import conf

    if conf.is_disabled():
        return {}
    from airflow.providers.openlineage.plugins import macros
    from airflow.providers.openlineage.utils.emission_policy import resolve_task_emission_policy

    try:
        if not resolve_task_emission_policy(operator, instance.dag_id, instance.task_id).emit:
            return {}
        return {
            PARENT_ID: macros.lineage_parent_id(instance),
            ROOT_PARENT_ID: macros.lineage_root_parent_id(instance),
        }
    except Exception:
        # Events are about a task; they must not fail it.
        log.warning("The job's own lineage events are left out.", exc_info=True)
        return {}


def _facets(item: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, symlinks_dataset, tags_dataset

    facets: dict[str, Any] = {}
    if item.version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=item.version)
    if item.symlink is not None:
        namespace, name = item.symlink
        facets["symlinks"] = symlinks_dataset.SymlinksDatasetFacet(
            identifiers=[symlinks_dataset.Identifier(namespace=namespace, name=name, type="TABLE")]
        )
    if item.tags:
        facets["tags"] = tags_dataset.TagsDatasetFacet(tags=list(_tags(item.tags.items())))
    return facets


def _tags(tags: Iterable[tuple[str, str]]) -> Iterable[Any]:
    from openlineage.client.facet_v2 import tags_dataset

    for key, value in tags:
        yield tags_dataset.TagsDatasetFacetFields(key=key, value=value, source="AIRLOOP")
