"""When a day's served features are skew, and what of it is news."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airloop.intervals import ONE_DAY
from airloop.monitoring.silences import SKEW, Silence, Silences
from airloop.monitoring.skew import JudgedDay, judged_rows, said_of
from airloop.references import JudgedSkew
from airloop.use_cases.monitoring_policy import Monitoring

DAY = datetime(2026, 11, 20, tzinfo=UTC)
POLICY = Monitoring(min_requests=200)


def counted(feature: str, unequal: int, rows: int = 1000, day: datetime = DAY) -> dict[str, Any]:
    return {
        "day": day,
        "feature": feature,
        "rows": rows,
        "unequal": unequal,
        "only_online": 0,
        "only_offline": 0,
        "mean_absolute_difference": None,
    }


@pytest.mark.parametrize(
    ("unequal", "rows", "skewed"), [(100, 1000, False), (101, 1000, True), (90, 199, None)]
)
def test_a_feature_is_skewed_above_the_share_that_is_usual(
    unequal: int, rows: int, skewed: bool | None
) -> None:
    (row,) = judged_rows([counted("wind", unequal, rows)], POLICY)
    assert row["skewed"] is skewed


def said(
    rows: list[dict[str, Any]], was: set[str] | None = None, silences: Silences | None = None
) -> JudgedSkew:
    before = None if was is None else JudgedDay(DAY, frozenset(was))
    return said_of(judged_rows(rows, POLICY), before, silences or Silences(), DAY + ONE_DAY)


def test_only_what_the_judged_day_before_did_not_have_is_news() -> None:
    found = said([counted("wind", 500), counted("rain", 300), counted("snow", 0)], {"wind", "snow"})
    assert (found.skewed, found.began, found.cleared) == (("rain", "wind"), ("rain",), ("snow",))
    assert found.lines == ("wind: 50.0% of 1,000 unequal", "rain: 30.0% of 1,000 unequal")
    assert found.unequal_shares == {"wind": 0.5, "rain": 0.3, "snow": 0.0}
    assert said([counted("wind", 500)]).began == ("wind",), "there is no earlier day"


def test_too_few_answers_do_not_say_that_skew_is_over() -> None:
    found = said([counted("wind", 0, rows=20)], {"wind"})
    assert (found.skewed, found.began, found.cleared) == ((), (), ())


def test_a_silence_keeps_news_quiet_and_what_lasts_is_news_when_it_ends() -> None:
    silence = Silence(SKEW, DAY + 1.5 * ONE_DAY, "known", "Ada")
    silences = Silences([(DAY - ONE_DAY, silence)])
    found = said([counted("wind", 500)], silences=silences)
    assert (found.skewed, found.began, found.silenced) == (("wind",), (), silence.said)
    ended = said_of(
        judged_rows([counted("wind", 500, day=DAY + ONE_DAY)], POLICY),
        JudgedDay(DAY + ONE_DAY, frozenset({"wind"})),
        silences,
        DAY + 2 * ONE_DAY,
    )
    assert (ended.began, ended.silenced) == (("wind",), None)


def test_days_without_answers_are_skipped() -> None:
    assert said([]).skipped
