"""Work in progress goes with its job, however the job ends, and with no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airloop.settings import Settings
from airloop.work_folders import work_folder

JOB = """
import sys, time
from pathlib import Path
from airloop.settings import Settings
from airloop.work_folders import work_folder
with work_folder(Settings(state_dir=Path(sys.argv[1])), "train") as folder:
    (folder / "rows").write_text("of somebody")
    print(folder, flush=True)
    time.sleep(600)
"""


def _job(settings: Settings) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", JOB, str(settings.state_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert job.stdout is not None
    return job, Path(job.stdout.readline().strip())


def test_what_a_killed_job_left_is_swept_and_what_another_uses_is_not(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    (killed, left), (alive, used) = _job(settings), _job(settings)
    try:
        with work_folder(settings, "evaluate"):
            assert left.exists()
            assert used.exists()
        killed.kill()
        killed.wait()
        assert left.exists()
        with work_folder(settings, "evaluate") as own:
            assert not left.exists()
            assert (used / "rows").exists()
            assert own.exists()
    finally:
        alive.kill()
        alive.wait()


def test_it_is_gone_after_a_failure_too(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)

    def fail() -> None:
        with work_folder(settings, "evaluate") as folder:
            (folder / "rows").write_text("")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert list(settings.scratch_dir.iterdir()) == []


def test_that_of_a_process_lasts_as_long_as_it(tmp_path: Path) -> None:
    code = JOB.replace("with work_folder(", "if folder := process_work_folder(").replace(") as folder:", "):")
    code = code.replace("import work_folder", "import process_work_folder").replace("time.sleep(600)", "")
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert Path(done.stdout.strip()).parent == Settings(state_dir=tmp_path).scratch_dir
    assert not Path(done.stdout.strip()).exists()


def test_what_is_no_work_folder_stays(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    (settings.scratch_dir / "results").mkdir(parents=True)
    with work_folder(settings, "evaluate"):
        pass
    assert [path.name for path in settings.scratch_dir.iterdir()] == ["results"]
