"""What each service is asked for, field by field: names, images, roles, keys, tags, spot, hosts, tokens."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from airloop.compute import Batch
from airloop.settings import REPOSITORY
from airloop_airflow.compute.batch import OnBatch
from airloop_airflow.compute.emr_serverless import ENTRY_POINT, IMAGE_CODE, IMAGE_PYTHON
from airloop_airflow.compute.service import Asked
from tests.aws.conftest import BUCKET, IMAGE, KEY, ROLE

TAGS = {
    "airloop:use-case": "any",
    "airloop:dag": "any_training",
    "airloop:task": "train",
    "airloop:run": "scheduled__2026-11-20T00:00:00+00:00",
    "airloop:environment": "production",
}


def _only(aws, operation):
    (call,) = aws.recorder.calls(operation)
    return call.parameters


def test_emr_serverless_is_asked_for_a_spark_job(task_on, aws):
    task = task_on("emr_serverless")
    task.begin()
    (name,) = aws.folders()
    asked = _only(aws, "StartJobRun")
    assert asked["name"] == asked["clientToken"] == name
    assert asked["applicationId"] == aws.places["emr_serverless"]["application_id"]
    assert asked["executionRoleArn"] == ROLE
    assert asked["tags"] == TAGS
    submit = asked["jobDriver"]["sparkSubmit"]
    assert submit["entryPoint"] == ENTRY_POINT
    assert submit["entryPointArguments"] == [f"s3://{BUCKET}/jobs/{name}"]
    words = shlex.split(submit["sparkSubmitParameters"])
    assert set(words[::2]) == {"--conf"}
    options = dict(word.split("=", 1) for word in words[1::2])
    assert options["spark.driver.memory"] == "8g"
    assert options["spark.executor.cores"] == "4"
    assert options["spark.dynamicAllocation.maxExecutors"] == "8"
    assert options["spark.emr-serverless.driverEnv.AIRLOOP_SPARK_MASTER"] == "submitted"
    logs = asked["configurationOverrides"]["monitoringConfiguration"]
    assert logs["cloudWatchLoggingConfiguration"]["logStreamNamePrefix"] == name
    assert {place["encryptionKeyArn"] for place in logs.values()} == {KEY}


def test_the_image_has_what_emr_serverless_starts():
    """The Dockerfile puts code and environment where the request looks for them."""
    assert (REPOSITORY / ENTRY_POINT.removeprefix(f"local://{IMAGE_CODE}/")).is_file()
    made = (REPOSITORY / "serving" / "images" / "Dockerfile").read_text("utf-8")
    assert f"WORKDIR {IMAGE_CODE}\n" in made
    assert f"PATH={IMAGE_PYTHON.rpartition('/')[0]}:" in made


def test_an_application_that_sleeps_is_started_first(task_on, aws):
    task = task_on("emr_serverless")
    application = aws.places["emr_serverless"]["application_id"]
    aws.client("emr-serverless").stop_application(applicationId=application)
    waiting = task.begin()
    assert not aws.recorder.calls("StartJobRun")
    assert aws.recorder.calls("StartApplication")
    with pytest.raises(TaskDeferred) as caught:
        task.resume(waiting)
    assert caught.value.method_name == "resume"
    assert len(aws.recorder.calls("StartJobRun")) == 1
    assert len(aws.folders()) == 1


def test_sagemaker_is_asked_for_a_training_on_spot_machines(task_on, aws):
    task = task_on("sagemaker")
    aws.places["sagemaker"] |= {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "instance_count": 2}
    task = task_on("sagemaker")
    task.begin()
    (name,) = aws.folders()
    asked = _only(aws, "CreateTrainingJob")
    folder = f"s3://{BUCKET}/jobs/{name}"
    assert asked["TrainingJobName"] == name
    assert asked["RoleArn"] == ROLE
    assert asked["AlgorithmSpecification"] == {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python", "-m", "airloop.remote_job"],
        "ContainerArguments": [folder],
    }
    assert asked["OutputDataConfig"] == {"S3OutputPath": f"{folder}/output", "KmsKeyId": KEY}
    assert asked["ResourceConfig"] == {
        "InstanceType": "ml.m7i.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 50,
        "VolumeKmsKeyId": KEY,
    }
    assert asked["EnableManagedSpotTraining"] is True
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 21600, "MaxWaitTimeInSeconds": 43200}
    assert asked["CheckpointConfig"] == {
        "S3Uri": f"s3://{BUCKET}/jobs/checkpoints/{name.removesuffix('-1')}",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert asked["Environment"]["AIRLOOP_TRAINING_CHECKPOINTS_DIR"] == "/opt/ml/checkpoints"
    assert asked["EnableInterContainerTrafficEncryption"] is True
    assert asked["EnableNetworkIsolation"] is False
    assert asked["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert {tag["Key"]: tag["Value"] for tag in asked["Tags"]} == TAGS


def test_tries_share_checkpoints_until_one_has_a_result(task_on, aws):
    task = task_on("sagemaker")
    task.begin()
    aws.end("sagemaker", well=False)
    waiting = task.begin(try_number=2)
    one, two = (call.parameters for call in aws.recorder.calls("CreateTrainingJob"))
    assert one["TrainingJobName"] != two["TrainingJobName"]
    assert one["CheckpointConfig"] == two["CheckpointConfig"]
    place = one["CheckpointConfig"]["S3Uri"].removeprefix(f"s3://{BUCKET}/")
    for key in (f"{place}/any/checkpoint.npz", "jobs/checkpoints/another/checkpoint.npz"):
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"weights")
    aws.play(two["TrainingJobName"])
    aws.end("sagemaker")
    task.resume(waiting, try_number=2)
    assert aws.folders()["checkpoints"] == {"another/checkpoint.npz"}


@pytest.mark.parametrize(
    ("machine", "has_key"), [("ml.m7i.xlarge", True), ("ml.g5.xlarge", False), ("ml.c5d.xlarge", False)]
)
def test_a_machine_with_a_disk_of_its_own_gets_no_key_for_a_volume(task_on, aws, machine, has_key):
    aws.places["sagemaker"]["instance_type"] = machine
    task_on("sagemaker").begin()
    assert ("VolumeKmsKeyId" in _only(aws, "CreateTrainingJob")["ResourceConfig"]) is has_key


def test_a_name_that_sagemaker_has_had_gets_a_number(task_on, aws):
    """The run was deleted and made again: SageMaker remembers, and S3 may not."""
    task = task_on("sagemaker")
    task.begin()
    (name,) = aws.folders()
    aws.end("sagemaker", well=False)
    for item in aws.folders()[name]:
        aws.client("s3").delete_object(Bucket=BUCKET, Key=f"jobs/{name}/{item}")
    task.begin()
    asked = [call.parameters["TrainingJobName"] for call in aws.recorder.calls("CreateTrainingJob")]
    assert asked == [name, f"{name}-2"]


def test_batch_is_asked_for_one_host(task_on, aws):
    task = task_on("batch")
    task.begin()
    (name,) = aws.folders()
    asked = _only(aws, "SubmitJob")
    assert asked["jobName"] == name
    assert asked["jobQueue"] == aws.places["batch"]["job_queue"]
    assert asked["jobDefinition"] == aws.places["batch"]["job_definition"]
    assert asked["tags"] == TAGS
    assert asked["timeout"] == {"attemptDurationSeconds": 21600}
    command = ["python", "-m", "airloop.remote_job", f"s3://{BUCKET}/jobs/{name}"]
    assert asked["containerOverrides"] == {"command": command}
    assert "nodeOverrides" not in asked


def test_batch_is_asked_for_several_hosts(task_on, aws):
    aws.places["batch"] = aws.places["batch_hosts"]
    task = task_on("batch")
    task.begin()
    (name,) = aws.folders()
    asked = _only(aws, "SubmitJob")
    command = ["python", "-m", "airloop.remote_job", f"s3://{BUCKET}/jobs/{name}"]
    assert asked["nodeOverrides"] == {
        "numNodes": 2,
        "nodePropertyOverrides": [{"targetNodes": "0:", "containerOverrides": {"command": command}}],
    }
    assert "containerOverrides" not in asked


def test_a_job_for_one_host_asks_a_definition_for_several_for_one_node(task_on, aws):
    settings = task_on("batch").settings
    place = Batch.model_validate(aws.places["batch_hosts"])
    folder = SimpleNamespace(uri=f"s3://{BUCKET}/jobs/fold")
    asked = Asked("fold", {}, folder, several_hosts=False, checkpoints_uri=None)
    operator = OnBatch(place, settings).operator("fold", asked)
    assert operator.node_overrides["numNodes"] == 1
    assert not operator.container_overrides


def test_a_training_on_batch_goes_on_where_another_machine_was(task_on, aws):
    task = task_on("batch")
    waiting = task.begin(mode="interrupted")
    (name,) = aws.folders()
    assert aws.play(name) == 1
    aws.end("batch", well=False)
    with pytest.raises(AirflowException):
        task.resume(waiting, mode="interrupted")
    assert aws.folders()["checkpoints"] == {f"{name.removesuffix('-1')}/any/checkpoint.npz"}
    waiting = task.begin(try_number=2, mode="interrupted")
    assert aws.play(f"{name.removesuffix('-1')}-2") == 0
    aws.end("batch")
    assert task.resume(waiting, try_number=2, mode="interrupted")["argument"] == "half of it"
    assert "checkpoints" not in aws.folders()


def test_the_hosts_of_a_batch_job_find_one_another_and_the_first_writes(task_on, aws):
    aws.places["batch"] = aws.places["batch_hosts"]
    task = task_on("batch")
    waiting = task.begin(mode="hosts")
    (name,) = aws.folders()
    told = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "127.0.0.1"}
    # The second waits for the first, which is there already: so one after the other does here.
    aws.client("s3").put_object(Bucket=BUCKET, Key=f"jobs/{name}/hosts/1/0", Body=b"127.0.0.1:2222")
    assert aws.play(name, **told, AWS_BATCH_JOB_NODE_INDEX="1") == 0
    assert "result.json" not in aws.folders()[name]
    assert aws.play(name, **told, AWS_BATCH_JOB_NODE_INDEX="0") == 0
    aws.end("batch")
    config = json.loads(task.resume(waiting, mode="hosts")["tf_config"])
    assert config["task"] == {"type": "worker", "index": 0}
    assert len(config["cluster"]["worker"]) == 2
