"""Cost-allocation tags.

Belongs here: what is tagged how. Does not belong here: the tags of job runs, which whoever starts a job sets.
"""

from __future__ import annotations

from aws_cdk import Tags
from constructs import IConstruct

ENVIRONMENT = "airloop:environment"
COMPONENT = "airloop:component"
USE_CASE = "airloop:use-case"
SHARED = "platform"
"""The use case of what all use cases share; a job's run has its own."""


def of_component(construct: IConstruct, component: str) -> None:
    """Count `construct`, and what is in it, to `component`."""
    Tags.of(construct).add(COMPONENT, component)


def of_deployment(construct: IConstruct, environment: str) -> None:
    """Count `construct`, and what is in it, to `environment`, and to no use case."""
    Tags.of(construct).add(ENVIRONMENT, environment)
    Tags.of(construct).add(USE_CASE, SHARED)
