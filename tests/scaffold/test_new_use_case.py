"""What `make new-use-case` writes from a CSV file: files that hold, or nothing and why."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from airloop.errors import AirloopError, SourceError
from airloop.intervals import Interval
from airloop.scaffold.__main__ import main
from airloop.scaffold.columns import read_table
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
        # Names that the files and tables have already, one too long, another alphabet, the same time twice.
        (
            "user_id,event_timestamp,events,hour,request,stays_away,events_7d,"
            "Zufriedenheit mit allem was es so gibt 😀",
            "u,{day},1,2,r,s,3,😀",
            "user_id",
            "event_timestamp",
            {"own_request", "own_stays_away", "zufriedenheit_mit_allem_was_es_so_gibt"},
            ("events_7d", "own_events_mean_7d", "own_hour_mean_7d", "own_events_7d_mean_7d", "last_event_at"),
        ),
        # A column without a value, seven digits of a second.
        (
            "user_id,at,empty,paid",
            "u{n},{day}T10:00:00.1234567Z,,true",
            "user_id",
            "at",
            {"paid"},
            ("events_7d", "last_event_at"),
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
    options = spec.sources[0].options
    called = [options.get(f"column.{column.name}", column.name) for column in spec.feeds[0].columns]
    assert set(called) == set(header.split(",")) - {"empty"}
    spec.model_dump_json()


def test_rows_of_the_same_one_at_the_same_time_are_records_of_their_own(tmp_path: Path) -> None:
    alone = read_table(write(tmp_path, "user_id,at,paid", "u,{day},{n}"))
    twice = read_table(write(tmp_path, "user_id,at,paid", "u,{day},{n}\nu,{day},{n}0"))
    assert (alone.repeats, twice.repeats) == (False, True)
    write_use_case("own", twice, tmp_path)
    require_laid_out(tmp_path, "own")
    assert spec_of(tmp_path, "own").feeds[0].key == ("user_id", "at", "paid")


def test_windows_of_years_are_no_longer_than_they_need_be(tmp_path: Path) -> None:
    write_use_case("own", read_table(write(tmp_path, "user_id,at", "u,{day}", days=1500)), tmp_path)
    training = spec_of(tmp_path, "own").training
    assert (training.train_days, training.validation_days, training.test_days) == (119, 28, 28)


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
        ("user_id,at,x,x", "u,{day},1,1", 60, "x twice in the header"),
        ("user_id,at,x", "u,{day},1e400", 60, "60 of 60, such as"),
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


def test_days_without_a_row_and_rows_without_whom_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,at", "u,{day}")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "2024-01-1" not in line), "utf-8")
    with pytest.raises(SourceError, match="none on 10 days: 2024-01-10, 2024-01-11"):
        read_table(path)
    path.write_text("".join(lines).replace("u,2024-01-07", ",2024-01-07"), "utf-8")
    with pytest.raises(SourceError, match="a value of user_id in each row"):
        read_table(path)


def test_a_path_that_would_stand_for_others_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,at", "u,{day}").rename(tmp_path / "own[1].csv")
    with pytest.raises(SourceError, match=r"\[ \] in "):
        write_use_case("own", read_table(path), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_taken_or_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("", "Churn", "9lives", "a-b", "x" * 32, "class"):
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
