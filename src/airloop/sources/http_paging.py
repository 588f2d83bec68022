"""Walks through the pages of an API, in whichever way it pages, until it has given everything.

Belongs here: where the next page is, and how a walk that is endless or too short is noticed. Does not belong
here: requests (`http_client`), or what a record is (`http_api`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
from pydantic import Field as OptionField
from pydantic import model_validator

from airloop.errors import SourceError
from airloop.sources.http_client import Api, Page, same_origin
from airloop.sources.options import AdapterOptions
from airloop.sources.outage import SourceUnavailable
from airloop.sources.parsing import at_path, text_hash


class PagedOptions(AdapterOptions):
    """How an API gives its records."""

    records: str = ""
    """Dotted path of the list of records in a document; empty where the document is the list."""
    paging: Literal["none", "next", "link", "page", "offset", "cursor"] = "none"
    next: str | None = None
    """Dotted path of the next page's URL, for `paging=next`; `paging=link` reads the Link header."""
    cursor: str | None = None
    """Dotted path of what `cursor_parameter` is to be for the next page, for `paging=cursor`."""
    cursor_parameter: str = "cursor"
    page_parameter: str = "page"
    first_page: int = 1
    offset_parameter: str = "offset"
    page_size: int | None = OptionField(None, ge=1)
    """Records to ask for; the API may give fewer."""
    page_size_parameter: str = "limit"
    total: str | None = None
    """Dotted path of how many records there are over all pages; fewer or more are then an error."""

    @model_validator(mode="after")
    def _complete(self) -> PagedOptions:
        for name in ("next", "cursor"):
            if (getattr(self, name) is not None) != (self.paging == name):
                raise ValueError(f"paging={name} and the option {name} need one another")
        return self


def records_of(api: Api, url: str, options: PagedOptions) -> Iterator[Any]:
    """The records of all pages from `url` on, as JSON values.

    Raises `SourceError` when a document has no such list, when a page leads back to an earlier one or to
    another host, and when the records do not add up to the API's total; `SourceUnavailable` when the total
    changes meanwhile.
    """
    at: str | None = _first(url, options)
    seen: set[str] = set()
    total: int | None = None
    count, number, last = 0, 0, ""
    while at is not None:
        if at in seen:
            raise _endless(at, f"page {number} leads back to an earlier one")
        seen.add(at)
        page = api.get(at)
        number += 1
        records = _list(page, options)
        content = text_hash(json.dumps(records, sort_keys=True)) if records else ""
        if records and content == last:
            raise _endless(at, f"page {number} repeats page {number - 1}")
        last = content
        count += len(records)
        total = _total(page, options, total)
        yield from records
        at = _following(page, options, len(records), count, total)
    if total is not None and count != total:
        raise SourceError(
            expected=f"{total} records at {url.partition('?')[0]}, the API's {options.total}",
            found=f"{count} on {number} pages",
            next_step="check the source's paging options; nothing was ingested",
        )


def _first(url: str, options: PagedOptions) -> str:
    parameters: dict[str, int] = {}
    if options.page_size is not None:
        parameters[options.page_size_parameter] = options.page_size
    if options.paging == "page":
        parameters[options.page_parameter] = options.first_page
    elif options.paging == "offset":
        parameters[options.offset_parameter] = 0
    return str(httpx.URL(url).copy_merge_params(parameters)) if parameters else url


def _following(page: Page, options: PagedOptions, records: int, count: int, total: int | None) -> str | None:
    """The URL of the next page, None after the last."""
    if options.paging == "next":
        return _joined(page, at_path(page.document, options.next or ""))
    if options.paging == "link":
        return _joined(page, page.next_link)
    if options.paging == "cursor":
        cursor = at_path(page.document, options.cursor or "")
        return str(page.url.copy_set_param(options.cursor_parameter, cursor)) if cursor else None
    # A page may be shorter than was asked for and not be the last: only an empty one, or the total, ends.
    if options.paging == "none" or records == 0 or (total is not None and count >= total):
        return None
    if options.paging == "page":
        number = int(page.url.params[options.page_parameter]) + 1
        return str(page.url.copy_set_param(options.page_parameter, number))
    return str(page.url.copy_set_param(options.offset_parameter, count))


def _joined(page: Page, link: Any) -> str | None:
    if not link:
        return None
    following = page.url.join(str(link))
    if not same_origin(following, page.url):
        raise SourceError(
            expected=f"the next page at {page.url.host}, like the ones before",
            found=f"a link to {following.host}",
            next_step="check the API: following it would carry the connection's secret there",
        )
    return str(following)


def _list(page: Page, options: PagedOptions) -> list[Any]:
    records = at_path(page.document, options.records)
    if isinstance(records, list):
        return records
    keys = ", ".join(page.document) if isinstance(page.document, dict) else type(page.document).__name__
    at = str(page.url).partition("?")[0]
    raise SourceError(
        expected=f"a list at {options.records or 'the top'} of the document at {at}",
        found=f"{type(records).__name__}; the document has {keys}",
        next_step="correct the option records, or have the API mended; nothing was ingested",
    )


def _total(page: Page, options: PagedOptions, before: int | None) -> int | None:
    if options.total is None:
        return None
    total = at_path(page.document, options.total)
    if not isinstance(total, int) or isinstance(total, bool):
        raise SourceError(
            expected=f"a whole number at {options.total} of each page",
            found=repr(total)[:80],
            next_step="correct the option total, or leave it out",
        )
    if before is not None and total != before:
        raise SourceUnavailable(f"{options.total} went from {before} to {total} while the pages were read")
    return total


def _endless(url: str, found: str) -> SourceError:
    return SourceError(
        expected=f"the pages at {url.partition('?')[0]} to come to an end",
        found=found,
        next_step="check the source's paging options; nothing was ingested",
    )
