"""What is killed is killed whole."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from tests.faults.survival.process_tree import kill_tree

FAMILY = """
import os, subprocess, sys, time
if int(sys.argv[1]):
    # A session of its own, as Airflow's hook gives a job.
    child = subprocess.Popen(
        [sys.executable, "-c", sys.argv[2], str(int(sys.argv[1]) - 1), sys.argv[2]], start_new_session=True
    )
print(os.getpid(), flush=True)
time.sleep(600)
"""


def _family(generations: int) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    command = [sys.executable, "-c", FAMILY, str(generations - 1), FAMILY]
    head = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert head.stdout is not None
    pids = [int(head.stdout.readline()) for _ in range(generations)]
    return head, [psutil.Process(pid) for pid in pids]


def test_children_in_sessions_of_their_own_die_too():
    head, family = _family(3)
    killed = kill_tree(head.pid)
    assert {process.pid for process in killed} == {process.pid for process in family}
    head.wait(timeout=10)
    assert head.returncode == -9
    end = time.monotonic() + 10
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_that_ended_by_itself_is_not_said_to_be_killed():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert kill_tree(ended.pid) == []
    ended.wait()
    assert kill_tree(ended.pid) == []
