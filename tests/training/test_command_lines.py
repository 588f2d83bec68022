"""The jobs' edges: references as arguments, and the commit that is recorded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from airloop.errors import EXIT_PERMANENT
from airloop.training import cross_validated, evaluate, fold, folds, register, study, train, trial
from airloop.training.provenance import UNKNOWN, code_commit, is_reproducible


@pytest.mark.parametrize(
    ("job", "flags"),
    [
        (train, ["--training-set", "{"]),
        (study, ["--training-set", "{"]),
        (trial, ["--training-set", "{", "--study", "s", "--slot", "0"]),
        (folds, ["--training-set", "{"]),
        (fold, ["--training-set", "{", "--fold", "0"]),
        (cross_validated, ["--training-set", "{", "--measured", "[]"]),
        (evaluate, ["--training-set", "{}", "--candidate", "{}"]),
        (register, ["--evaluated", '{"run_id": 1}']),
    ],
)
def test_a_reference_that_is_not_one_is_a_permanent_failure(
    job: object, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    result = tmp_path / "result.json"
    main = job.main  # type: ignore[attr-defined]  # modules share the job contract, not a type
    assert main(["--use-case", "flight_delay", *flags, "--result", str(result)]) == EXIT_PERMANENT
    error = json.loads(result.read_text())["error"]
    assert flags[0] in error["expected"]
    assert "result file" in error["next_step"]


def test_the_commit_says_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "code.py").write_text("one = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    clean = code_commit(tmp_path)
    assert clean == git("rev-parse", "HEAD")
    assert is_reproducible(clean)
    (tmp_path / "code.py").write_text("one = 2\n")
    assert code_commit(tmp_path) == f"{clean}-dirty"
    assert not is_reproducible(f"{clean}-dirty")


def test_without_a_repository_the_commit_is_stated_as_unknown(tmp_path: Path) -> None:
    assert code_commit(tmp_path / "absent") == UNKNOWN
    image = tmp_path / "image"
    image.mkdir()
    (image / "COMMIT").write_text("0123abc\n")
    assert code_commit(image) == "0123abc"
    (image / "COMMIT").write_text("unknown\n")
    assert code_commit(image) == UNKNOWN
    assert not is_reproducible(UNKNOWN)
