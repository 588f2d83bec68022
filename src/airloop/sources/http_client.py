"""Asks an HTTP API for JSON: who asks, how long it waits, how often it tries again.

Belongs here: authentication, time-outs, retries, and what a failure means. Does not belong here: paging, or
what a document says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import httpx
import tenacity

from airloop.connections import Connection
from airloop.errors import SourceError, SpecError
from airloop.sources.outage import SourceUnavailable
from airloop.sources.parsing import parse_json

LARGEST_PAGE: Final = 64 << 20
"""Bytes of one document; an API that sends more should be asked for smaller pages."""

_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Page(NamedTuple):
    """One answer."""

    url: httpx.URL
    document: Any
    next_link: str | None
    """The Link header's `rel=next`, as it stands there."""


class Patience(NamedTuple):
    """How long one request may take."""

    timeout_seconds: float
    """Without a connection or a byte."""
    attempts: int
    longest_wait_seconds: float
    """Before a further attempt; an API that asks for more is left to the task's own retries."""


class _Again(Exception):
    """A failure that another attempt may cure."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class Api:
    """An API behind one origin: nothing is asked, and no secret sent, elsewhere."""

    def __init__(self, client: httpx.Client, patience: Patience) -> None:
        self._client, self._patience = client, patience

    def get(self, url: str) -> Page:
        """The JSON document at `url`.

        Raises `SourceError` for what a person must mend, `SourceUnavailable` after the last attempt.
        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._patience.attempts),
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._wait,
            reraise=True,
        )
        try:
            return retrying(self._get, url)
        except _Again as error:
            raise SourceUnavailable(f"{_plain(url)}: {error}, {self._patience.attempts} attempts") from None

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """What the API asked for, else 0.5 s, doubled each time, with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Again) and error.wait_seconds is not None:
            return error.wait_seconds
        jittered = tenacity.wait_exponential_jitter(
            initial=0.5, max=self._patience.longest_wait_seconds, jitter=0.5
        )
        return jittered(state)

    def _get(self, url: str) -> Page:
        try:
            with self._client.stream("GET", url) as response:
                self._check_status(response)
                body = _body(response)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
            raise _unusable(url, str(error)) from None
        except httpx.RequestError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise _unusable(url, str(error)) from None
            raise _Again(f"{type(error).__name__}: {error}") from None
        # A damaged byte spoils the record that it is in, not the page.
        text = body.decode("utf-8", "surrogateescape")
        try:
            document = parse_json(text)
        except ValueError as error:
            raise _unusable(url, f"no JSON ({error}): {text[:80]!a}") from None
        return Page(response.url, document, response.links.get("next", {}).get("url"))

    def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = f"{response.status_code} {response.reason_phrase}".strip()
        if response.status_code in _AGAIN:
            wait = _retry_after(response)
            if wait is not None and wait > self._patience.longest_wait_seconds:
                raise SourceUnavailable(f"{_plain(response.url)}: {status}, it asks to wait {wait:.0f} s")
            raise _Again(status, wait)
        if response.is_redirect:
            status += f" to {_plain(response.headers.get('location', ''))}"
        raise _unusable(str(response.url), status)


@contextmanager
def open_api(connection: Connection | None, patience: Patience) -> Iterator[Api]:
    """The API as the Airflow connection (type `http`) lets it be asked.

    With a login and password, basic authentication; with a password alone, a bearer token; `headers` in its
    extra are sent too. Redirects are not followed: they could carry the secret elsewhere.
    """
    headers = {"Accept": "application/json"}
    auth: tuple[str, str] | None = None
    if connection is not None:
        if connection.conn_type not in ("http", "https"):
            raise SpecError(
                expected=f"connection {connection.id!r} to be of type http",
                found=f"type {connection.conn_type!r}",
                next_step="name another connection in the source, or correct this one's type",
            )
        if connection.login:
            auth = (connection.login, connection.secret)
        elif connection.secret:
            headers["Authorization"] = f"Bearer {connection.secret}"
        headers.update({str(name): str(value) for name, value in connection.extra.get("headers", {}).items()})
    with httpx.Client(headers=headers, auth=auth, timeout=patience.timeout_seconds) as client:
        yield Api(client, patience)


def absolute(url: str, connection: Connection | None) -> str:
    """`url`, below the connection's host when it is a path.

    Raises `SpecError` for a path without a host, and for a URL elsewhere than at the connection's host.
    """
    base = _base(connection)
    joined = httpx.URL(base).join(url) if base else httpx.URL(url)
    if joined.is_relative_url or (base and not same_origin(joined, httpx.URL(base))):
        raise SpecError(
            expected=f"the url to be below {base}" if base else "a connection with a host, or a whole url",
            found=repr(url),
            next_step="correct the source's url, or the connection's host",
        )
    return str(joined)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two URLs are of one scheme, host and port."""
    ports = {"http": 80, "https": 443}
    return (one.scheme, one.host, one.port or ports.get(one.scheme)) == (
        other.scheme,
        other.host,
        other.port or ports.get(other.scheme),
    )


def _base(connection: Connection | None) -> str | None:
    """Airflow writes an HTTP connection's scheme into its schema, or into its host."""
    if connection is None or not connection.host:
        return None
    host = (
        connection.host
        if "://" in connection.host
        else f"{connection.schema_ or 'https'}://{connection.host}"
    )
    url = httpx.URL(host)
    return str(url.copy_with(port=connection.port) if connection.port else url)


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > LARGEST_PAGE:
            raise _unusable(str(response.url), f"a document of more than {LARGEST_PAGE >> 20} MiB")
    return bytes(body)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the API asks to wait: given as such, or as a time beside its own clock."""
    text = response.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        until, now = (_http_time(value) for value in (text, response.headers["date"]))
    except (KeyError, ValueError, TypeError):
        return None
    return max((until - now).total_seconds(), 0)


def _http_time(text: str) -> datetime:
    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(url: httpx.URL | str) -> str:
    """`url` without its query's values, which may hold a key."""
    return str(url).partition("?")[0]


def _unusable(url: str, found: str) -> SourceError:
    return SourceError(
        expected=f"a JSON document at {_plain(url)}",
        found=found,
        next_step="correct the source's url, or the connection's login and password; nothing was ingested",
    )
