"""Files: which ones an interval has, damage that is said plainly, bad lines that stop no others."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from airloop.errors import SourceError, SpecError
from airloop.intervals import Interval, day_interval
from airloop.settings import Settings
from airloop.sources.contract import Delivery
from airloop.sources.files import FilesSource
from airloop.sources.outage import SourceUnavailable
from airloop.sources.parsing import PIECE_ROWS
from airloop.use_cases.spec import Column, Feed
from tests.sources.arrivals import FEED, INTERVAL, in_utc, offsets, read, records, rows_of, values
from tests.sources.servers import S3Server
from tests.sources.test_every_adapter import csv_bytes, jsonl_bytes, parquet_bytes

SMALL = Feed(
    name="small",
    key=("id",),
    event_time="at",
    columns=(
        Column(name="id", type="long"),
        Column(name="name", type="string", required=False),
        Column(name="at", type="timestamp"),
    ),
)
"""A feed whose lines a person can read."""


def source(path: Path | str, form: str = "csv", **options: str) -> FilesSource:
    return FilesSource(Settings(), {"path": str(path), "format": form, **options})


def small(path: Path, content: bytes | str, **options: str) -> tuple[list[tuple[int, str | None]], list[str]]:
    """What a file of `SMALL` delivers: id and name of the good records, and why the others are malformed."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    pieces = read(source(path, path.suffix.removeprefix("."), **options), SMALL)
    good = [(record["id"], record["name"]) for record in records(pieces)]
    return good, [item.reason for piece in pieces for item in piece.malformed]


def line(number: int, name: str = "x") -> str:
    return f"{number},{name},2013-03-05T00:00:{number % 60:02d}Z\n"


HEADER = "id,name,at\n"


# Which files an interval has.


def test_a_template_with_hours_reads_each_hour_of_the_interval(tmp_path: Path) -> None:
    interval = Interval(in_utc(2013, 3, 5, 22), in_utc(2013, 3, 6, 2))
    for hour in range(4):
        start = interval.start + timedelta(hours=hour)
        folder = tmp_path / f"{start:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        span = Interval(start, start + timedelta(hours=1))
        (folder / f"arrivals-{start:%H}.csv").write_bytes(csv_bytes(rows_of(span, 5, first=hour * 5)))
    adapter = source(tmp_path / "{day:%Y/%m/%d}/{feed}-{hour}.csv")
    assert len(values(read(adapter, interval=interval))) == 20
    assert len(values(read(adapter, interval=Interval(interval.start, in_utc(2013, 3, 6))))) == 10


def test_a_glob_reads_its_files_in_order_of_name(tmp_path: Path) -> None:
    for part in (2, 0, 1):
        (tmp_path / f"2013-03-05-{part}.csv").write_bytes(csv_bytes(rows_of(count=2, first=part * 2)))
    (tmp_path / "2013-03-06-0.csv").write_bytes(b"not a file of this day")
    pieces = read(source(tmp_path / "{day}-*.csv"))
    assert [record["flight_id"][-1] for record in records(pieces)] == list("012345")


def test_a_missing_day_is_named(tmp_path: Path) -> None:
    (tmp_path / "2013-03-05.csv").write_bytes(csv_bytes(rows_of()))
    three_days = Interval(INTERVAL.start, INTERVAL.start + timedelta(days=3))
    with pytest.raises(SourceError, match=r"none at \S*2013-03-06\.csv, \S*2013-03-07\.csv.*deliver it"):
        read(source(tmp_path / "{day}.csv"), interval=three_days)
    allowed = read(source(tmp_path / "{day}.csv", missing="allow"), interval=three_days)
    assert len(values(allowed)) == 24


def test_a_feed_may_have_options_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.psv").write_text("nr|name|at\n7|x|2013-03-05 01:00\n")
    options = {
        "path": f"{tmp_path}/nowhere",
        "format": "csv",
        "small.path": f"{tmp_path}/a.psv",
        "small.delimiter": "|",
        "small.column.id": "nr",
        "other.delimiter": ";",
    }
    (record,) = records(read(FilesSource(Settings(), options), SMALL))
    assert (record["id"], record["at"]) == (7, in_utc(2013, 3, 5, 1))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"path": "x"}, "format: Field required"),
        ({"path": "x", "format": "xls"}, "format: Input should be 'csv', 'jsonl' or 'parquet'"),
        ({"path": "x", "format": "csv", "pth": "y"}, "pth: Extra inputs are not permitted"),
        ({"path": "x", "format": "csv", "small.pth": "y"}, "there is no option 'pth'"),
        (
            {"path": "x", "format": "csv", "encoding": "utf-16"},
            "no encoding in which lines end with one byte",
        ),
        ({"path": "x", "format": "csv", "time_zone": "Mars"}, "'Mars' is no IANA time zone"),
        ({"path": "{week}.csv", "format": "csv"}, "week in '{week}.csv'"),
        ({"path": "{day.csv", "format": "csv"}, "braces that are closed"),
    ],
)
def test_an_unusable_option_is_named(options: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        read(FilesSource(Settings(), options), SMALL)


# Damage.


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.zst", "csv.zip", "parquet"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    text = csv_bytes(rows_of(count=5_000))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day.csv", text)
    whole = {
        "csv.gz": lambda: gzip.compress(text),
        "csv.zst": lambda: zstandard.compress(text),
        "csv.zip": zipped.getvalue,
        "parquet": lambda: parquet_bytes(rows_of(count=5_000)),
    }[suffix]()
    path = tmp_path / f"day.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SourceError, match=rf"day\.{suffix} to be whole.*deliver the file again"):
        read(source(path, suffix.partition(".")[0]))


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.zst", "csv.zip", "parquet"])
def test_a_file_damaged_in_the_middle_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"day.{suffix}"
    text = csv_bytes(rows_of(count=5_000))
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(text))
    elif suffix == "csv.zst":
        path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(text))
    elif suffix == "csv.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("day.csv", text)
    else:
        table = pa.Table.from_pylist(rows_of(count=5_000))
        pq.write_table(table, path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(byte ^ 0x5A for byte in content[middle : middle + 40])
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"day\.{suffix} to be whole"):
        read(source(path, suffix.partition(".")[0]))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_renamed_column_is_named_with_those_that_are_there(tmp_path: Path, form: str) -> None:
    rows = [
        {("places" if name == "seats" else name): value for name, value in row.items()} for row in rows_of()
    ]
    write = {"csv": csv_bytes, "jsonl": jsonl_bytes, "parquet": parquet_bytes}[form]
    (tmp_path / f"day.{form}").write_bytes(write(rows))
    with pytest.raises(SourceError, match=rf"columns seats in .*day\.{form}; found only .*places"):
        read(source(tmp_path / f"day.{form}", form))
    mapped = source(tmp_path / f"day.{form}", form, **{"column.seats": "places"})
    assert values(read(mapped)) == rows_of()


def test_a_parquet_column_of_another_type_is_named(tmp_path: Path) -> None:
    rows = [{**row, "seats": "many", "landed_at": "yesterday"} for row in rows_of()]
    (tmp_path / "day.parquet").write_bytes(parquet_bytes(rows))
    with pytest.raises(SourceError, match=r"day\.parquet.*seats is string, not long; landed_at is string"):
        read(source(tmp_path / "day.parquet", "parquet"))


def test_parquet_values_that_do_not_fit_are_set_aside_alone(tmp_path: Path) -> None:
    rows = rows_of()
    broken = [{**row, "delay_minutes": float("nan")} if n == 4 else row for n, row in enumerate(rows)]
    broken = [{**row, "gate": 2**40} if n == 6 else row for n, row in enumerate(broken)]
    (tmp_path / "day.parquet").write_bytes(parquet_bytes(broken))
    pieces = read(source(tmp_path / "day.parquet", "parquet"))
    assert values(pieces) == [row for n, row in enumerate(rows) if n not in (4, 6)]
    reasons = [item.reason for piece in pieces for item in piece.malformed]
    assert reasons == [
        "delay_minutes: nan is no finite number",
        "gate: 1099511627776 is no whole number of 32 bits",
    ]
    told = read(source(tmp_path / "day.parquet", "parquet", nan_is_null="true"))
    assert {**rows[4], "delay_minutes": None} in values(told)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"each column of .*day\.csv once; found 'id' more than once"):
        small(tmp_path / "day.csv", "id,id,name,at\n1,1,x,2013-03-05T00:00:00Z\n")


def test_an_empty_csv_file_is_refused_and_a_header_alone_is_a_quiet_day(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a header in .*day\.csv; found an empty file"):
        small(tmp_path / "day.csv", "")
    assert small(tmp_path / "day.csv", HEADER) == ([], [])


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the header of .*day\.csv to be utf-8"):
        small(tmp_path / "day.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(SourceError, match=r"columns id, name, at in .*day\.csv"):
        small(tmp_path / "day.csv", b"%PDF-1.7\n")
    (tmp_path / "day.csv").write_bytes(b"x" * (20 << 20))
    with pytest.raises(SourceError, match="lines of at most 8 MiB"):
        read(source(tmp_path / "day.csv"), SMALL)


def test_a_file_that_changes_while_it_is_read_is_noticed_and_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_bytes(csv_bytes(rows_of()))
    pieces = source(path).read(FEED, INTERVAL)
    next(pieces)
    path.write_bytes(csv_bytes(rows_of(count=25)))
    with pytest.raises(SourceUnavailable, match=r"day\.csv changed while it was read"):
        list(pieces)


# Bad lines.


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("2,x\n", "2 fields instead of 3"),
        ("2,x,2013-03-05T00:00:00Z,more\n", "4 fields instead of 3"),
        ("two,x,2013-03-05T00:00:00Z\n", "id: 'two' is no whole number of 64 bits"),
        ("0x2,x,2013-03-05T00:00:00Z\n", "id: '0x2' is no whole number of 64 bits"),
        ("99999999999999999999,x,2013-03-05T00:00:00Z\n", "id: '99999999999999999999' is no whole number"),
        ("2,x,noon\n", "at: 'noon' is no instant"),
        ("2,x,2013-02-30T00:00:00Z\n", "at: '2013-02-30T00:00:00Z' is no instant"),
        (",x,2013-03-05T00:00:00Z\n", "id: no value, and the feed requires one"),
        ('2,"x,2013-03-05T00:00:00Z\n', "a quote is not closed"),
        ('"2","x,2013-03-05T00:00:00Z\n', "a quote is not closed"),
        ('2,x","2013-03-05T00:00:00Z\n', "a quote stands where none may"),
        ("two,x,noon\n", "id: 'two' .*; at: 'noon'"),
    ],
)
def test_a_bad_csv_line_is_set_aside_alone(tmp_path: Path, bad: str, reason: str) -> None:
    path = tmp_path / "day.csv"
    path.write_text(HEADER + line(1) + bad + line(3) + line(4))
    pieces = read(source(path), SMALL)
    assert [record["id"] for record in records(pieces)] == [1, 3, 4]
    (malformed,) = (item for piece in pieces for item in piece.malformed)
    assert re.search(reason, malformed.reason)
    assert malformed.payload == bad.rstrip("\n")
    assert malformed.offset.endswith(":0000000003")
    assert malformed.offset.startswith(f"{path}@")
    assert malformed.time == records(pieces)[0]["_source_time"]


def test_bytes_that_are_no_text_are_kept_as_base64(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_bytes(
        HEADER.encode() + line(1).encode() + b"2,caf\xe9,2013-03-05T00:00:00Z\n" + line(3).encode()
    )
    pieces = read(source(path), SMALL)
    assert [record["id"] for record in records(pieces)] == [1, 3]
    (malformed,) = (item for piece in pieces for item in piece.malformed)
    assert malformed.reason == "no utf-8 at byte 6: 0xe9"
    assert malformed.payload.startswith("base64:")
    latin = records(read(source(path, encoding="latin-1"), SMALL))
    assert [record["name"] for record in latin] == ["x", "café", "x"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"id": 2, "at": "2013-03-05T00:00:00Z"', "no JSON: "),
        ("[1, 2]", "no JSON object"),
        ("[" * 100_000, "no JSON: "),
        ('{"id": "two", "at": "2013-03-05T00:00:00Z"}', "id: 'two' is no whole number of 64 bits"),
        ('{"id": 2.5, "at": "2013-03-05T00:00:00Z"}', "id: '2.5' is no whole number of 64 bits"),
        ('{"id": 1e999, "at": "2013-03-05T00:00:00Z"}', "id: 'Infinity' is no whole number of 64 bits"),
        ('{"id": true, "at": "2013-03-05T00:00:00Z"}', "id: 'true' is no whole number of 64 bits"),
        ('{"id": {"n": 2}, "at": "2013-03-05T00:00:00Z"}', "id: {'n': 2} is not a single value"),
        ('{"id": 2, "name": 7, "at": "2013-03-05T00:00:00Z"}', "name: 7 is no text"),
        ('{"id": 2, "name": "\\ud800", "at": "2013-03-05T00:00:00Z"}', "name: .* is no valid Unicode"),
        ('{"id": 2, "at": 1362441600}', "at: '1362441600' is no instant"),
        ('{"id": 2}', "at: no value, and the feed requires one"),
        ("{}", "id: no value.*; at: no value"),
    ],
)
def test_a_bad_json_line_is_set_aside_alone(tmp_path: Path, bad: str, reason: str) -> None:
    good = [f'{{"id": {n}, "name": "x", "at": "2013-03-05T00:00:0{n}Z"}}\n' for n in (1, 3, 4)]
    path = tmp_path / "day.jsonl"
    path.write_text(good[0] + bad + "\n" + good[1] + good[2])
    pieces = read(source(path, "jsonl"), SMALL)
    assert [record["id"] for record in records(pieces)] == [1, 3, 4]
    (malformed,) = (item for piece in pieces for item in piece.malformed)
    assert re.search(reason, malformed.reason)
    assert malformed.payload == bad
    assert malformed.offset.endswith(":0000000002")


def test_a_malformed_line_of_another_day_is_left_to_that_day(tmp_path: Path) -> None:
    text = HEADER + line(1) + "two,x,2013-03-06T00:00:00Z\n"
    assert small(tmp_path / "day.csv", text) == ([(1, "x")], [])


# Text forms.


def test_blank_lines_line_ends_of_windows_and_a_byte_order_mark_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    text = "\ufeff" + (HEADER + line(1) + "\n" + line(3) + "\n\n").replace("\n", "\r\n")
    assert small(path, text) == ([(1, "x"), (3, "x")], [])
    assert [place[-2:] for place in (r["_source_offset"] for r in records(read(source(path), SMALL)))] == [
        "02",
        "04",
    ]


def test_null_values_are_those_that_the_options_name_and_the_empty_field(tmp_path: Path) -> None:
    text = HEADER + line(1, "NA") + line(2, "") + line(3, '"NA"') + line(4, '""') + line(5, "null")
    assert small(tmp_path / "day.csv", text, null_values="NA,-")[0] == [
        (1, None),
        (2, None),
        (3, "NA"),
        (4, ""),
        (5, "null"),
    ]


def test_quoted_values_may_span_lines_when_the_options_say_so(tmp_path: Path) -> None:
    text = HEADER + line(1, '"a\nb, ""c"""') + line(2) + "3,x\n" + line(4, '"d\n\ne"')
    good, reasons = small(tmp_path / "day.csv", text, quoted_line_ends="true")
    assert good == [(1, 'a\nb, "c"'), (2, "x"), (4, "d\n\ne")]
    assert reasons == ["2 fields instead of 3"]
    offsets_there = [
        r["_source_offset"][-1]
        for r in records(read(source(tmp_path / "day.csv", quoted_line_ends="true"), SMALL))
    ]
    assert offsets_there == ["2", "4", "6"]


def test_a_stray_quote_costs_its_own_line_even_where_values_may_span_lines(tmp_path: Path) -> None:
    text = HEADER + line(1) + line(2, '"x') + "".join(line(n) for n in range(3, 2000))
    good, reasons = small(tmp_path / "day.csv", text, quoted_line_ends="true")
    assert [number for number, _ in good] == [1, *range(3, 2000)]
    assert reasons == ["a quote is not closed"]


def test_times_without_an_offset_are_in_the_zone_that_the_options_name(tmp_path: Path) -> None:
    times = ("2013-03-05T01:00:00", "2013-03-05 01:00:00+01:00", "2013-03-05", "2013-03-05T10:00:00.1234567Z")
    path = tmp_path / "day.csv"
    path.write_text(HEADER + "".join(f"{n},x,{text}\n" for n, text in enumerate(times)))
    found = [record["at"] for record in records(read(source(path, time_zone="America/New_York"), SMALL))]
    assert found == [
        in_utc(2013, 3, 5, 6),
        in_utc(2013, 3, 5, 0),
        in_utc(2013, 3, 5, 5),
        in_utc(2013, 3, 5, 10, 0, 0, 123456),
    ]


def test_a_time_that_the_clocks_show_twice_or_never_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(HEADER + "1,x,2013-11-03T01:30:00\n2,x,2013-03-10T02:30:00\n3,x,2013-11-03T05:00:00\n")
    november = day_interval(datetime(2013, 11, 3, tzinfo=UTC).date())
    pieces = read(source(path, time_zone="America/New_York"), SMALL, november)
    assert [record["id"] for record in records(pieces)] == [3]
    assert [item.reason for piece in pieces for item in piece.malformed] == [
        "at: '2013-11-03T01:30:00' is no instant",
        "at: '2013-03-10T02:30:00' is no instant",
    ]


def test_numbers_of_seconds_are_times_when_the_options_give_their_unit(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_text('{"id": 1, "at": 1362441600}\n{"id": 2, "at": "2013-03-05T01:00:00Z"}\n')
    found = [record["at"] for record in records(read(source(path, "jsonl", timestamp_unit="s"), SMALL))]
    assert found == [in_utc(2013, 3, 5), in_utc(2013, 3, 5, 1)]


def test_json_fields_may_lie_deeper(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_text(
        '{"flight": {"nr": 1}, "at": "2013-03-05T00:00:00Z"}\n{"flight": 7, "at": "2013-03-05"}\n'
    )
    pieces = read(source(path, "jsonl", **{"column.id": "flight.nr"}), SMALL)
    assert [record["id"] for record in records(pieces)] == [1]
    assert [item.reason for piece in pieces for item in piece.malformed] == [
        "id: no value, and the feed requires one"
    ]


# Versions.


def test_source_time_is_when_the_file_was_written_and_the_offset_says_which_version(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_bytes(csv_bytes(rows_of()))
    moment = in_utc(2013, 3, 6, 1)
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    first = read(source(path))
    assert {record["_source_time"] for record in records(first)} == {moment}
    os.utime(path, (moment.timestamp() + 60, moment.timestamp() + 60))
    again = read(source(path))
    assert set(offsets(first).values()).isdisjoint(offsets(again).values())
    assert max(offsets(again).values()) > max(offsets(first).values())


# Memory.


def test_large_files_come_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(HEADER + "".join(line(n) for n in range(3 * PIECE_ROWS + 7)))
    pieces = read(source(path), SMALL)
    assert sum(piece.records.num_rows for piece in pieces) == 3 * PIECE_ROWS + 7
    assert all(piece.records.num_rows <= PIECE_ROWS for piece in pieces)
    assert len(pieces) >= 4
    numbers = [record["_source_offset"].rpartition(":")[2] for record in records(pieces)]
    assert numbers == [f"{n:010d}" for n in range(2, 3 * PIECE_ROWS + 9)]


_PEAK = """
import resource, sys
from airloop.intervals import day_interval
from airloop.settings import Settings
from airloop.sources.files import FilesSource
from tests.sources.test_files import SMALL, INTERVAL
form, path = sys.argv[1:]
source = FilesSource(Settings(), {"path": path, "format": form})
rows = sum(piece.records.num_rows for piece in source.read(SMALL, INTERVAL))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.{form}"
        table = pa.table(
            {
                "id": pa.array(range(rows), pa.int64()),
                "name": pa.array([f"name {n:060d}" for n in range(rows)]),
                "at": pa.array([INTERVAL.start] * rows, pa.timestamp("us", tz="UTC")),
            }
        )
        if form == "parquet":
            pq.write_table(table, path, row_group_size=25_000)
        else:
            template = "{},name {:060d},2013-03-05T00:00:00Z\n"
            if form == "jsonl":
                template = '{{"id": {}, "name": "name {:060d}", "at": "2013-03-05T00:00:00Z"}}\n'
            with path.open("w") as file:
                file.write(HEADER if form == "csv" else "")
                file.writelines(template.format(n, n) for n in range(rows))
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, form, str(path)], check=True, capture_output=True, text=True
        )
        found, kibibytes = map(int, done.stdout.split())
        assert found == rows
        return kibibytes // 1024

    assert peak(400_000) < peak(100_000) + 20


# Object storage.


def s3_source(s3: S3Server, path: str, **changes: object) -> FilesSource:
    return FilesSource(
        Settings(), {"path": f"s3://{s3.bucket}/{path}", "format": "csv"}, s3.connection(**changes)
    )


def test_s3_is_read_by_template_and_glob_through_the_connection(s3: S3Server) -> None:
    s3.put("glob/day=2013-03-05/part 1=a.csv", csv_bytes(rows_of(count=2)))
    s3.put("glob/day=2013-03-05/part 2.csv", csv_bytes(rows_of(count=2, first=2)))
    s3.put("glob/day=2013-03-06/part 1.csv", b"another day")
    pieces = read(s3_source(s3, "glob/day={day}/part*.csv"))
    assert [record["flight_id"][-1] for record in records(pieces)] == list("0123")
    assert f"s3://{s3.bucket}/glob/day=2013-03-05/part 1=a.csv@" in offsets(pieces)["F000000"]


def test_an_s3_object_written_again_with_the_same_content_is_the_same(s3: S3Server) -> None:
    def offsets_of(content: bytes) -> dict[str, str]:
        s3.put("same.csv", content)
        return offsets(read(s3_source(s3, "same.csv")))

    first = offsets_of(csv_bytes(rows_of()))
    assert offsets_of(csv_bytes(rows_of())) == first
    assert offsets_of(csv_bytes(rows_of(count=25)))["F000000"] != first["F000000"]


@pytest.mark.parametrize("path", ["absent.csv", "absent/*.csv"])
def test_a_missing_s3_object_is_named(s3: S3Server, path: str) -> None:
    with pytest.raises(SourceError, match=rf"none at s3://{s3.bucket}/absent"):
        read(s3_source(s3, path))


def test_a_truncated_s3_object_is_named(s3: S3Server) -> None:
    s3.put("cut.csv.gz", gzip.compress(csv_bytes(rows_of(count=2_000)))[:-100])
    with pytest.raises(SourceError, match=rf"s3://{s3.bucket}/cut\.csv\.gz to be whole"):
        read(s3_source(s3, "cut.csv.gz"))


def test_an_s3_service_that_does_not_answer_may_be_tried_again(s3: S3Server) -> None:
    from tests.sources.servers import HOST, free_port

    gone = {"endpoint_url": f"http://{HOST}:{free_port()}", "region_name": "eu-central-1"}
    with pytest.raises(SourceUnavailable, match=rf"s3://{s3.bucket}/day\.csv"):
        read(s3_source(s3, "day.csv", extra=gone))


def test_a_connection_of_another_type_is_refused(s3: S3Server) -> None:
    with pytest.raises(SpecError, match=r"'lake' to be of type aws.*found type 'http'"):
        read(s3_source(s3, "day.csv", conn_type="http"))


def test_a_delivery_keeps_its_shape_when_all_of_it_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(HEADER + "x\n" + "y,z\n")
    (piece,) = read(source(path), SMALL)
    assert isinstance(piece, Delivery)
    assert piece.records.num_rows == 0
    assert [item.reason for item in piece.malformed] == ["1 fields instead of 3", "2 fields instead of 3"]
