"""Long lists are cut, and say so."""

from __future__ import annotations

from airloop.wording import listed


def test_a_long_list_says_how_much_is_left_out() -> None:
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert listed([]) == ""
