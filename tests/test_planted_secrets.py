"""The search for secrets finds what it should: a search that finds nothing proves nothing by itself."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest

from tests import planted_secrets
from tests.planted_secrets import search

SECRET = 'planted/"of the tests"+0123456789'
PLANTED = {"the secret": SECRET, "another": "another-of-the-tests-987"}


@pytest.mark.parametrize(
    "written",
    [
        f"INFO token={SECRET}".encode(),
        json.dumps({"extra": SECRET}).encode(),
        b"https://user:planted%2F%22of%20the%20tests%22%2B0123456789@host",
        *(base64.b64encode(b"u:"[:length] + SECRET.encode() + b"!") for length in range(3)),
        *(base64.urlsafe_b64encode(b"u:"[:length] + SECRET.encode() + b"!") for length in range(3)),
        pytest.param(gzip.compress(f"INFO {SECRET}".encode(), mtime=0), id="gzip"),
    ],
)
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "task.log").write_bytes(b"a line\n" + written if written[:1] != b"\x1f" else written)
    assert search(tmp_path, PLANTED, {}).found == (("the secret", "logs/task.log"),)


def test_a_secret_across_two_blocks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_secrets, "BLOCK_BYTES", 64)
    (tmp_path / "log").write_text("." * 60 + SECRET + "." * 60)
    assert search(tmp_path, PLANTED, {}).found == (("the secret", "log"),)


def test_a_secret_may_stand_where_it_is_kept_and_nowhere_else(tmp_path: Path) -> None:
    for name in ("secrets.json", "log"):
        (tmp_path / name).write_text(PLANTED["another"])
    searched = search(tmp_path, PLANTED, {"another": ["secrets.json"]})
    assert searched.found == (("another", "log"),)
    assert (searched.files, searched.secrets) == (2, 2)
    assert json.loads(searched.line)["secrets_grep"]["found"] == [["another", "log"]]


def test_a_folder_without_any_is_searched_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("nothing of the kind")
    assert search(tmp_path, PLANTED, {}) == (1, 19, 2, ())
