"""Runs a job on a machine that does not see the shared folder: on EMR Serverless, SageMaker or Batch.

    python -m airloop.remote_job s3://bucket/jobs/<name>

Belongs here: from the request to the result, in a private folder. Does not belong here: what the job does, or
who asks for it (`airloop_airflow.compute`). See `airloop.job_folder` for what lies at the address.

The request lies on S3, and not on the command line or in the environment, because SageMaker takes arguments
of at most 256 characters, Batch of 8 KiB in all, and because consoles show both.

The job runs in this process: spark-submit's gateway and a spot machine's SIGTERM reach it as if it had been
started itself. What it wrote that belongs into the shared folder goes to S3 before its result, so that who
sees a result finds all of it. The exit status is the job's.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import boto3

from airloop.connections import variable_of
from airloop.errors import EXIT_PERMANENT, AirloopError, SettingsError
from airloop.job_folder import BROUGHT_HOME, FILES, INPUTS, REQUEST, RESULT, JobFolder, Request, Result
from airloop.logs import configure_job
from airloop.secrets_manager import Secrets
from airloop.settings import PREFIX
from airloop.training import cluster_config
from airloop.training.checkpoint_copies import CheckpointCopies

log = logging.getLogger(__name__)

FAILURE: Final = Path("/opt/ml/output/failure")
"""What a SageMaker job writes there is its reason in the console."""
CHECKPOINTS: Final = "training"
"""Below the shared folder, unless a setting says where."""
TF_CONFIG: Final = "TF_CONFIG"


def run(uri: str, private: Path) -> int:
    """Run what the request at `uri` asks for, with `private` in the shared folder's place; returns its
    status."""
    # S3 alone of all services finds its region by itself.
    request = _request(JobFolder(uri, boto3.client("s3"), None))
    region = request.environment.get(f"{PREFIX}AWS_REGION")
    folder = JobFolder(
        uri, boto3.client("s3", region_name=region), request.environment.get(f"{PREFIX}KMS_KEY")
    )
    leads = True
    try:
        _prepare(request, folder, private)
        if request.several_hosts:
            leads = _join_hosts(folder)
        with ExitStack() as stack:
            if request.checkpoints_uri is not None:
                copies = folder.at(request.checkpoints_uri)
                stack.enter_context(CheckpointCopies(copies, private / CHECKPOINTS))
            status, document = _job(request, private)
    except AirloopError as error:
        log.error("%s: %s", type(error).__name__, error)
        status, document = EXIT_PERMANENT, {"error": error.as_document()}
    if leads:
        for home in BROUGHT_HOME:
            for path in sorted((private / home.folder).rglob("*")):
                if path.is_file():
                    folder.upload(path, f"{FILES}/{path.relative_to(private).as_posix()}")
        result = Result(status=status, document=document, state_dir=str(private))
        folder.put(RESULT, result.model_dump_json())
    if status != 0 and FAILURE.parent.is_dir():
        error_document = (document or {}).get("error")
        FAILURE.write_text(json.dumps(error_document) if error_document else f"exit status {status}", "utf-8")
    return status


def _request(folder: JobFolder) -> Request:
    found = folder.get(REQUEST)
    if found is None:
        raise SettingsError(
            expected=f"a request at {folder.uri}/{REQUEST}",
            found="none",
            next_step="start the job by its task in Airflow, which writes it",
        )
    return Request.model_validate_json(found)


def _prepare(request: Request, folder: JobFolder, private: Path) -> None:
    """Give this process what the job's would have from Airflow."""
    for variable, value in request.environment.items():
        # What the place says of itself, such as its Spark master, comes before what Airflow's says of its.
        os.environ.setdefault(variable, value)
    os.environ[f"{PREFIX}STATE_DIR"] = str(private)
    region = request.environment.get(f"{PREFIX}AWS_REGION")
    if region is not None:
        for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            os.environ.setdefault(variable, region)
    for field, name in request.inputs.items():
        path = private / INPUTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.download(f"{INPUTS}/{name}", path)
        os.environ[PREFIX + field.upper()] = str(path)
    connections = (*request.connections, *request.optional_connections)
    if not (connections or request.secret_settings or request.needs_database_passwords):
        return
    if request.secrets_prefix is None:
        raise SettingsError(
            expected=f"{PREFIX}SECRETS_PREFIX, as {request.module} needs secrets",
            found="none",
            next_step="set it to the beginning of their names in Secrets Manager",
        )
    secrets = Secrets(request.secrets_prefix, boto3.client("secretsmanager", region_name=region))
    for connection in connections:
        os.environ[variable_of(connection)] = secrets.connection(connection)
    for field in request.secret_settings:
        os.environ[PREFIX + field.upper()] = secrets.setting(field)
    if request.needs_database_passwords:
        path = private / "database-passwords"
        path.touch(mode=0o600)
        path.write_text(secrets.database_passwords(), "utf-8")
        os.environ["PGPASSFILE"] = str(path)


def _join_hosts(folder: JobFolder) -> bool:
    """Tell TensorFlow the hosts that share this job; returns whether this is the one that writes."""
    config = cluster_config.on_sagemaker(os.environ) or cluster_config.on_batch(os.environ, folder)
    if config is None:
        return True
    os.environ[TF_CONFIG] = json.dumps(config)
    log.info("host %d of %s", config["task"]["index"], ", ".join(config["cluster"]["worker"]))
    return bool(config["task"]["index"] == 0)


def _job(request: Request, private: Path) -> tuple[int, dict[str, Any] | None]:
    """Run the module as `python -m` would; returns its exit status and its result document."""
    result = private / "result.json"
    sys.argv = [request.module, *request.flags, "--result", str(result)]
    status = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception:
        # As Python itself does with what nothing catches.
        traceback.print_exc()
        status = 1
    document = json.loads(result.read_text("utf-8")) if result.exists() else None
    return status, document


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: the job's folder on S3."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1:
        print("usage: python -m airloop.remote_job s3://bucket/prefix", file=sys.stderr)
        return 2
    configure_job()
    with tempfile.TemporaryDirectory(prefix="airloop-") as private:
        return run(arguments[0], Path(private))


if __name__ == "__main__":
    sys.exit(main())
