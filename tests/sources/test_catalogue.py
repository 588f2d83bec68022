"""Adapters are found by their short name or path; any other name is refused with the known ones."""

from __future__ import annotations

import pytest

from airloop.errors import SpecError
from airloop.sources.catalogue import ADAPTERS, adapter_class


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_every_short_name_leads_to_an_adapter(name: str) -> None:
    assert callable(adapter_class(name).read)


def test_an_adapter_of_ones_own_is_named_by_its_path() -> None:
    assert adapter_class("airloop.sources.files:FilesSource") is adapter_class("files")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"files, http, nycflights, sql, or module:Class; found 'ftp'"):
        adapter_class("ftp")
    with pytest.raises(SpecError, match="no attribute 'Nothing'"):
        adapter_class("airloop.sources.files:Nothing")
