"""Jobs on AWS' services: the same way for each, from the request to the result at home."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)

from airloop.cost.attempts import written_attempts
from tests.aws.conftest import BUCKET, KEY, PASSWORD, ROLE

DIGEST = hashlib.sha256(PASSWORD.encode()).hexdigest()
KINDS = ("emr_serverless", "sagemaker", "batch")
STARTS = {"emr_serverless": "StartJobRun", "sagemaker": "CreateTrainingJob", "batch": "SubmitJob"}
STOPPED = {"emr_serverless": "CANCELLED", "sagemaker": "Stopped", "batch": "FAILED"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_elsewhere_comes_to_the_same_as_a_process(task_on, aws, kind):
    task = task_on(kind)
    waiting = task.begin(argument='{"rows": 1}')
    (name,) = aws.folders()
    assert aws.play(name) == 0
    aws.end(kind)
    result = task.resume(waiting, argument='{"rows": 1}')

    assert result["argument"] == '{"rows": 1}'
    assert result["environment"]["AIRFLOW_CTX_DAG_RUN_ID"] == "scheduled__2026-11-20T00:00:00+00:00"
    assert result["secret"] == DIGEST, "the job gets its connection"
    assert result["prices"] == "currency = 'EUR'", "and the file that a setting names"
    assert result["catalog"] == "postgresql://reader@db/airloop"

    state = task.settings.state_dir
    assert result["data_docs_uri"] == (state / "reports" / "any" / "page.html").as_uri()
    assert (state / "reports" / "any" / "page.html").read_text() == "all well"
    assert not (state / "private.txt").exists(), "only declared folders come home"
    assert aws.folders()[name] == {
        *("request.json", "inputs/prices.toml", "started.json", "files/reports/any/page.html"),
        *("result.json", "taken.json"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_in_a_request_and_all_that_is_put_is_encrypted_with_the_key(task_on, aws, kind):
    task = task_on(kind)
    task.begin()
    (name,) = aws.folders()
    aws.play(name)
    objects = aws.folders()[name]
    assert PASSWORD not in aws.recorder.file.read_text()
    for item in objects - {"result.json"}:
        assert PASSWORD.encode() not in aws.read(f"jobs/{name}/{item}"), item
    puts = aws.recorder.calls("PutObject")
    assert {put.parameters["Key"].rpartition("/")[2] for put in puts} >= {
        *("request.json", "prices.toml", "started.json", "page.html", "result.json")
    }
    for put in puts:
        assert put.parameters["Bucket"] == BUCKET
        assert put.parameters["ServerSideEncryption"] == "aws:kms"
        assert put.parameters["SSEKMSKeyId"] == KEY
    read = [call.parameters["SecretId"] for call in aws.recorder.calls("GetSecretValue")]
    assert read == ["airloop/connections/departures", "airloop/database-passwords"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_job_is_charged_for_is_written_down(task_on, aws, kind):
    task = task_on(kind)
    waiting = task.begin()
    (name,) = aws.folders()
    aws.client("s3").put_object(
        Bucket=BUCKET,
        Key=f"jobs/{name}/result.json",
        Body=json.dumps({"status": 0, "document": {}, "state_dir": "/x"}),
    )
    aws.end(kind)
    task.resume(waiting)
    ((_, attempt),) = written_attempts(task.settings)
    assert (attempt.use_case, attempt.dag_id, attempt.task_id) == ("any", "any_training", "train")
    assert attempt.ended
    # SageMaker's machines were cheaper than they are on demand: 60 of 200 seconds are billed.
    assert attempt.wall_seconds == {"emr_serverless": 120, "sagemaker": 60, "batch": 90}[kind]
    assert (attempt.cpu_seconds, attempt.memory_gib_seconds) == (
        (1800, 7200) if kind == "emr_serverless" else (0, 0)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_was_killed_adopts_its_job(task_on, aws, kind):
    task = task_on(kind)
    first = task.begin(try_number=1)
    again = task.begin(try_number=2)
    assert again.kwargs == first.kwargs
    assert again.trigger.serialize() == first.trigger.serialize()
    assert len(aws.recorder.calls(STARTS[kind])) == 1
    # Nor does another task take it for its own.
    other = task.context()
    other["ti"].run_id = "scheduled__2026-11-27T00:00:00+00:00"
    with pytest.raises(TaskDeferred):
        task.operator().execute(other)
    assert len(aws.recorder.calls(STARTS[kind])) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_nobody_took_is_taken_once(task_on, aws, kind):
    task = task_on(kind)
    task.begin(try_number=1)
    (name,) = aws.folders()
    assert aws.play(name) == 0
    aws.end(kind)
    result = task.operator().execute(task.context(try_number=2))
    assert result["secret"] == DIGEST
    assert len(aws.recorder.calls(STARTS[kind])) == 1
    # Somebody has the task run again: it does.
    task.begin(try_number=3)
    assert len(aws.recorder.calls(STARTS[kind])) == 2
    assert len(aws.folders()) == 2


def test_a_result_of_other_flags_is_not_taken(task_on, aws):
    task = task_on("emr_serverless")
    task.begin(argument="1")
    (name,) = aws.folders()
    aws.play(name)
    aws.end("emr_serverless")
    task.begin(try_number=2, argument="2")
    assert len(aws.recorder.calls("StartJobRun")) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["by the worker", "while it waits", "when its time is over", "in vain"])
def test_a_task_that_is_stopped_stops_its_job(task_on, aws, kind, how):
    task = task_on(kind)
    waiting = task.begin()
    if how == "by the worker":
        operator = task.operator()
        with pytest.raises(TaskDeferred):
            operator.execute(task.context())
        operator.on_kill()
    elif how == "while it waits":
        asyncio.run(waiting.trigger.on_kill())
    elif how == "when its time is over":
        with pytest.raises(TaskDeferralTimeout):
            task.operator().resume_execution("__fail__", {"error": "Trigger timeout"}, task.context())
    else:
        with pytest.raises(TaskDeferralError):
            task.operator().resume_execution(
                "__fail__", {"error": "no triggerer"}, task.context(try_number=4)
            )
    assert aws.states(kind) == [STOPPED[kind]]
    task.begin(try_number=5)
    assert len(aws.recorder.calls(STARTS[kind])) == 2, "a stopped job is not adopted"


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_goes_on_where_only_the_waiting_failed_and_there_is_another_try(task_on, aws, kind):
    task = task_on(kind)
    first = task.begin()
    with pytest.raises(TaskDeferralError):
        task.operator().resume_execution("__fail__", {"error": "no triggerer"}, task.context())
    assert task.begin(try_number=2).kwargs == first.kwargs


@pytest.mark.parametrize("kind", KINDS)
def test_a_permanent_failure_is_not_retried_and_its_report_comes_home(task_on, aws, kind):
    task = task_on(kind)
    waiting = task.begin(mode="permanent")
    (name,) = aws.folders()
    assert aws.play(name) == 65
    aws.end(kind, well=False)
    with pytest.raises(AirflowFailException, match=r"expected a file; found none\. Next: bring it") as caught:
        task.resume(waiting, mode="permanent")
    assert caught.value.type == "AuditError"
    assert (task.settings.reports_dir / "any" / "page.html").exists()
    assert caught.value.said.endswith("/airloop-reports/any/page.html")


def test_any_other_failure_may_be_retried(task_on, aws):
    task = task_on("sagemaker")
    waiting = task.begin(mode="temporary")
    (name,) = aws.folders()
    assert aws.play(name) == 1
    aws.end("sagemaker", well=False)
    with pytest.raises(
        AirflowException, match=r"small_job failed: RuntimeError: no luck\. Next: ask the doctor"
    ) as caught:
        task.resume(waiting, mode="temporary")
    assert not isinstance(caught.value, AirflowFailException)
    task.begin(try_number=2, mode="temporary")
    assert len(aws.recorder.calls("CreateTrainingJob")) == 2


def test_refused_flags_are_not_retried(task_on, aws):
    task = task_on("batch")
    waiting = task.begin(unknown="1")
    (name,) = aws.folders()
    assert aws.play(name) == 2
    aws.end("batch", well=False)
    with pytest.raises(AirflowFailException, match="refused its flags"):
        task.resume(waiting, unknown="1")


def test_a_job_that_finds_nothing_to_do_skips_its_task(task_on, aws):
    task = task_on("batch")
    waiting = task.begin(mode="nothing")
    (name,) = aws.folders()
    aws.play(name)
    aws.end("batch")
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        task.resume(waiting, mode="nothing")
    task.begin(try_number=2, mode="nothing")
    assert len(aws.recorder.calls("SubmitJob")) == 2, "run again, it looks again"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("well", [True, False])
def test_a_job_without_a_result_fails_and_may_be_retried(task_on, aws, kind, well):
    task = task_on(kind)
    waiting = task.begin()
    aws.end(kind, well=well)
    with pytest.raises(AirflowException) as caught:
        task.resume(waiting)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_secret_that_is_missing_is_named_and_no_retry_is_made(task_on, aws):
    task = task_on("emr_serverless")
    waiting = task.begin()
    aws.client("secretsmanager").delete_secret(
        SecretId="airloop/connections/departures", ForceDeleteWithoutRecovery=True
    )
    (name,) = aws.folders()
    assert aws.play(name) == 65
    aws.end("emr_serverless", well=False)
    with pytest.raises(AirflowFailException, match="the secret airloop/connections/departures"):
        task.resume(waiting)


def test_what_a_job_cannot_reach_is_said_before_it_starts(task_on, aws, monkeypatch):
    task = task_on("emr_serverless")
    monkeypatch.delenv("AIRLOOP_CATALOG_URI")
    with pytest.raises(AirflowFailException, match="AIRLOOP_CATALOG_URI"):
        task.operator().execute(task.context())
    assert not aws.folders()


def test_a_password_in_a_setting_is_refused(task_on, aws, monkeypatch):
    task = task_on("emr_serverless")
    monkeypatch.setenv("AIRLOOP_TUNING_STORAGE", f"postgresql://tuner:{PASSWORD}@db/tuning")
    with pytest.raises(AirflowFailException, match="AIRLOOP_TUNING_STORAGE") as caught:
        task.operator().execute(task.context())
    assert PASSWORD not in str(caught.value)
    assert not aws.folders()


def test_a_mounted_secret_goes_by_its_name(task_on, aws, monkeypatch, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "airloop_catalog_uri").write_text("postgresql://reader@elsewhere/airloop")
    monkeypatch.delenv("AIRLOOP_CATALOG_URI")
    monkeypatch.setenv("AIRLOOP_SECRETS_DIR", str(tmp_path / "secrets"))
    uri = "postgresql://reader@private/airloop"
    aws.client("secretsmanager").create_secret(Name="airloop/settings/catalog_uri", SecretString=uri)
    task = task_on("batch")
    waiting = task.begin()
    (name,) = aws.folders()
    assert b"elsewhere/airloop" not in aws.read(f"jobs/{name}/request.json")
    aws.play(name)
    aws.end("batch")
    assert task.resume(waiting)["catalog"] == uri


def test_a_job_needs_no_setting_and_no_secret_but_its_own(task_on, aws, monkeypatch, tmp_path):
    """The profile asks Airflow for more than this job needs: Redis' password is none of its business."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "airloop_redis_connection").write_text("redis:6379,password=p")
    given = {
        "PROFILE": "aws",
        "SECRETS_DIR": str(tmp_path / "secrets"),
        "FEAST_REGISTRY": "postgresql://reader@db/feast",
        "MLFLOW_URI": "https://mlflow",
        "MODEL_SERVER_TARGET": "models:8500",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AIRLOOP_{name}", value)
    task = task_on("emr_serverless")
    waiting = task.begin()
    (name,) = aws.folders()
    assert aws.play(name) == 0
    assert not [call for call in aws.recorder.calls("GetSecretValue") if "redis" in str(call.parameters)]
    aws.end("emr_serverless")
    assert task.resume(waiting)["catalog"] == "postgresql://reader@db/airloop"


def test_files_that_are_brought_home_stay_below_the_shared_folder(task_on, aws):
    task = task_on("batch")
    waiting = task.begin()
    (name,) = aws.folders()
    aws.play(name)
    for path in ("reports/../../outside", "models/any/1/saved_model.pb"):
        aws.client("s3").put_object(Bucket=BUCKET, Key=f"jobs/{name}/files/{path}", Body=b"!")
    aws.end("batch")
    task.resume(waiting)
    state = task.settings.state_dir
    assert not (state.parent / "outside").exists()
    assert not (state / "models").exists()


def test_roles_are_those_of_the_settings(task_on, aws):
    for kind in ("emr_serverless", "sagemaker"):
        task_on(kind).begin()
    (emr,) = aws.recorder.calls("StartJobRun")
    (sagemaker,) = aws.recorder.calls("CreateTrainingJob")
    assert emr.parameters["executionRoleArn"] == sagemaker.parameters["RoleArn"] == ROLE
