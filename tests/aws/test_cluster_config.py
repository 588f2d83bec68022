"""`TF_CONFIG` from what SageMaker and Batch tell their hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airloop.job_folder import JobFolder
from airloop.training.cluster_config import HostsMissingError, on_batch, on_sagemaker
from tests.aws.conftest import BUCKET, CREDENTIALS, REGION

NODE = """
import json, os, sys
import boto3
from airloop.job_folder import JobFolder
from airloop.training.cluster_config import on_batch
folder = JobFolder(sys.argv[1], boto3.client("s3"), None)
found = on_batch(os.environ, folder, port=int(sys.argv[2]), seconds=60, look_every_seconds=0.2)
print(json.dumps(found))
"""


def test_sagemaker_names_the_hosts_in_a_file(tmp_path):
    file = tmp_path / "resourceconfig.json"
    hosts = ["algo-10", "algo-2", "algo-1"]
    file.write_text(json.dumps({"current_host": "algo-2", "hosts": hosts, "network_interface_name": "eth0"}))
    assert on_sagemaker({}, file) == {
        "cluster": {"worker": ["algo-1:2222", "algo-2:2222", "algo-10:2222"]},
        "task": {"type": "worker", "index": 1},
    }


def test_the_variables_of_sagemakers_toolkit_say_the_same():
    found = on_sagemaker({"SM_HOSTS": '["algo-2", "algo-1"]', "SM_CURRENT_HOST": "algo-1"})
    assert found == {
        "cluster": {"worker": ["algo-1:2222", "algo-2:2222"]},
        "task": {"type": "worker", "index": 0},
    }


def test_one_host_shares_nothing(tmp_path):
    assert on_sagemaker({"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1"}) is None
    assert on_sagemaker({}, tmp_path / "none") is None
    assert on_batch({}, None) is None


def test_the_nodes_of_a_batch_job_learn_of_one_another_through_the_folder(aws, tmp_path):
    """Three processes, started in the wrong order, as Batch tells its nodes."""
    told = {"AWS_BATCH_JOB_NUM_NODES": "3", "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "127.0.0.1"}
    # What an earlier attempt left is of other machines.
    aws.client("s3").put_object(Bucket=BUCKET, Key="jobs/j-1/hosts/1/0", Body=b"10.0.0.9:2222")
    environment = {
        **os.environ,
        **CREDENTIALS,
        **told,
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_DEFAULT_REGION": REGION,
    }
    processes = {
        node: subprocess.Popen(
            [sys.executable, "-c", NODE, f"s3://{BUCKET}/jobs/j-1", str(2230 + node)],
            env={
                **environment,
                "AWS_BATCH_JOB_NODE_INDEX": str(node),
                "AWS_BATCH_JOB_ATTEMPT": "2",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in (2, 1, 0)
    }
    found = {node: json.loads(process.communicate(timeout=90)[0]) for node, process in processes.items()}
    workers = ["127.0.0.1:2230", "127.0.0.1:2231", "127.0.0.1:2232"]
    for node, config in found.items():
        assert config == {"cluster": {"worker": workers}, "task": {"type": "worker", "index": node}}


def test_a_node_that_does_not_come_is_named(aws):
    folder = JobFolder(f"s3://{BUCKET}/jobs/j-1", aws.client("s3"), None)
    told = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_NODE_INDEX": "0"}
    with pytest.raises(HostsMissingError, match="1 of 2 nodes did not come within 0 seconds: 1"):
        on_batch(told, folder, address="127.0.0.1", seconds=0.3, look_every_seconds=0.1)
