"""What `make new-use-case` writes from a CSV file: files that hold, or nothing and why."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from airloop.errors import AirloopError
from airloop.intervals import Interval
from airloop.scaffold.__main__ import main
from airloop.scaffold.columns import identifier, read_table
from airloop.scaffold.sample import DAYS, sample_csv
from airloop.scaffold.write import FILES, write_use_case
from airloop.settings import REPOSITORY
from airloop.stack.loop import Windows, features_interval
from airloop.use_cases.spec import UseCase

DAY = date(2024, 1, 1)


def rows(line: str, days: int = 60) -> str:
    """`line` once a day, with `{day}` and `{n}` in it."""
    return "".join(line.format(day=DAY + timedelta(days=n), n=n) + "\n" for n in range(days))


def write(folder: Path, header: str, line: str, days: int = 60) -> Path:
    path = folder / "own.csv"
    path.write_text(f"{header}\n{rows(line, days)}", "utf-8")
    return path


def spec_of(repository: Path, name: str) -> UseCase:
    """The spec that was written, as Python reads it."""
    path = repository / "src" / "airloop" / "use_cases" / f"{name}.py"
    found = importlib.util.spec_from_file_location(f"written_{name}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    spec = module.USE_CASE
    assert isinstance(spec, UseCase)
    return spec


def require_laid_out(repository: Path, name: str) -> None:
    """The files pass the rules that every file of the repository passes."""
    paths = [str(repository / file.format(name=name)) for file in FILES]
    config = ["--config", str(REPOSITORY / "pyproject.toml")]
    for command in (["check", *config], ["format", "--check", *config]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *paths], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_the_sample_becomes_a_use_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "churn", "--repository", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    written = [file.format(name="churn") for file in (*FILES, "tests/use_cases/{name}.csv")]
    assert all((tmp_path / file).is_file() and file in said for file in written)
    require_laid_out(tmp_path, "churn")
    spec = spec_of(tmp_path, "churn")
    assert spec.name == "churn"
    assert spec.sources[0].options["path"] == "tests/use_cases/churn.csv"
    assert [item.name for item in spec.inputs if item.type == "string"] == ["plan"]
    assert spec.features == ("events_7d", "amount_mean_7d", "last_event_at")
    assert "customer_id" in spec.identifiers
    training = spec.training
    windows = timedelta(days=training.train_days + training.validation_days + training.test_days)
    assert windows + spec.lookback + spec.label.matures_after == timedelta(days=DAYS)
    # What `make run` publishes is then all that the sample has, and no day without a row.
    tomorrow = datetime(2024, 1, 1, tzinfo=UTC)
    span = features_interval(spec, tomorrow, Windows())
    assert span == Interval(tomorrow - timedelta(days=DAYS), tomorrow)


def test_the_sample_of_a_day_is_always_the_same() -> None:
    assert sample_csv(DAY) == sample_csv(DAY)
    assert sample_csv(DAY) != sample_csv(DAY + timedelta(days=1))


@pytest.mark.parametrize(
    ("header", "line", "key", "time", "inputs", "features"),
    [
        # Dates alone, other names, numbers and truths, texts that name one thing each.
        (
            "Visit Date,PatientNo,Ward,Cost (EUR),Urgent,Note",
            "{day},{n},{n}w,{n}.5,true,text of {n}",
            "PatientNo",
            "Visit Date",
            {"ward", "urgent", "note"},
            ("events_7d", "cost_eur_mean_7d", "last_event_at"),
        ),
        # Nothing but whom and when.
        ("user_id,at", "u{n},{day}T10:00:00Z", "user_id", "at", set(), ("events_7d", "last_event_at")),
    ],
)
def test_columns_of_any_csv_find_their_place(
    tmp_path: Path,
    header: str,
    line: str,
    key: str,
    time: str,
    inputs: set[str],
    features: tuple[str, ...],
) -> None:
    table = read_table(write(tmp_path, header, line), key=key, time=time)
    write_use_case("own", table, tmp_path)
    require_laid_out(tmp_path, "own")
    spec = spec_of(tmp_path, "own")
    assert {item.name for item in spec.inputs if item.type == "string"} == inputs
    assert spec.features == features
    assert {column.name for column in spec.feeds[0].columns} == {identifier(one) for one in header.split(",")}
    renamed = {name: value for name, value in spec.sources[0].options.items() if name.startswith("column.")}
    assert set(renamed.values()) == {one for one in header.split(",") if one != identifier(one)}


def test_texts_that_differ_in_most_rows_are_no_inputs(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "user_id,at,note", "u,{day},note {n}", days=300))
    assert (table.categories, [one.name for one in table.others]) == ((), ["note"])


@pytest.mark.parametrize(
    ("header", "line", "days", "said"),
    [
        ("user_id,at,until", "u,{day},{day}", 60, "TIME=<column>"),
        ("user_id,at", "u,soon", 60, "TIME=<column>"),
        ("user,at", "u,{day}", 60, "KEY=<column>"),
        ("user_id,order_id,at", "u,o,{day}", 60, "user_id and order_id may both be it"),
        ("user_id,at,a b,a-b", "u,{day},1,1", 60, "'a b' and 'a-b'"),
        ("user_id,at", "u,{day}", 20, "events of 30 days or more"),
        ("user_id,at", "u,{day}", 0, "rows in"),
        ("user_id,at", "u,{day},1", 5, "Expected 2 columns, got 3"),
    ],
)
def test_a_csv_that_leaves_it_open_is_refused_and_nothing_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    header: str,
    line: str,
    days: int,
    said: str,
) -> None:
    path = write(tmp_path, header, line, days)
    assert main(["--name", "own", "--csv", str(path), "--repository", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [path]


def test_a_name_that_is_taken_or_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("", "Churn", "9lives", "a-b", "x" * 32):
        assert main(["--name", name, "--repository", str(tmp_path)]) == 1
        assert "lower-case letters" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == []
    assert main(["--name", "churn", "--repository", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["--name", "churn", "--repository", str(tmp_path)]) == 1
    assert "no use case churn yet" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AirloopError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")
