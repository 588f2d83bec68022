"""What a failure that nobody raised on purpose says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airloop.outages import LONGEST_REASON, next_step_of, reason_of, reason_of_status

JAVA = """An error occurred while calling o75.append.
: org.apache.spark.SparkException: Writing job aborted
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.writingJobAbortedError(QueryExecutionErrors.scala:1)
Caused by: java.io.UncheckedIOException: Failed to close
\tat org.apache.iceberg.io.RollingFileWriter.close(RollingFileWriter.java:1)
Caused by: java.io.IOException: No space left on device
\tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)
"""
JOB = """
import argparse, sys
from airloop.jobs import run_job
def work(arguments, settings):
    raise OSError(28, "No space left on device", "/data/part")
sys.exit(run_job(argparse.ArgumentParser(), work))
"""


def test_the_innermost_cause_from_java_is_told():
    assert reason_of(RuntimeError(JAVA)) == "RuntimeError: java.io.IOException: No space left on device"


def test_an_exception_from_java_without_a_deeper_cause_is_told_itself():
    error = RuntimeError(
        "An error occurred while calling o88.sql.\n: S3Exception: No space left (507)\n\tat x"
    )
    assert reason_of(error) == "RuntimeError: S3Exception: No space left (507)"


def test_an_exception_without_words_is_told_by_its_type():
    assert reason_of(MemoryError()) == "MemoryError"


def test_a_reason_is_one_line_that_can_be_read():
    reason = reason_of(ValueError("\n\n" + "x" * 5000 + "\nsecond"))
    assert len(reason) == LONGEST_REASON
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (1, "exit status 1"),
        (-9, "it was ended by SIGKILL, as the system does where memory runs out"),
        (137, "it was ended by SIGKILL, as the system does where memory runs out"),
        (-15, "it was ended by SIGTERM"),
        (255, "exit status 255"),
    ],
)
def test_an_exit_status_is_told_in_words(status, reason):
    assert reason_of_status(status) == reason


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("java.io.IOException: No space left on device", "make room on the disk"),
        ("java.lang.OutOfMemoryError: Java heap space", "more memory"),
        ("S3Exception: Access Denied (Service: S3, Status Code: 403)", "the right that it names"),
        ("SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired", "renew the certificate"),
        ("ConnectionError: Connection refused", "ask the doctor"),
    ],
)
def test_the_next_step_fits_the_reason(reason, step):
    assert step in next_step_of(reason)


def test_a_job_leaves_its_reason_in_its_result_file_and_the_traceback_in_its_log(tmp_path):
    result = tmp_path / "result.json"
    ended = subprocess.run(
        [sys.executable, "-c", JOB, "--result", str(result)],
        capture_output=True,
        text=True,
        env={**os.environ, "AIRLOOP_STATE_DIR": str(tmp_path / "state")},
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    failure = json.loads(result.read_text("utf-8"))
    assert failure == {"failure": "OSError: [Errno 28] No space left on device: '/data/part'"}
