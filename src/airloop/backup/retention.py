"""How long backups are kept.

Belongs here: which are given up, and removing contents that no backup has. Does not belong here: making one.

A backup that is given up stays on record for `GRACE` more, so that one which is being made meanwhile, and
relies on contents that only the other had, is whole in any case.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from airloop.backup import BackupError
from airloop.backup.manifest import backup_names, read_manifest
from airloop.backup.place import Place, object_name

log = logging.getLogger(__name__)

GRACE: Final = timedelta(days=1)


def retire(place: Place, *, days: int, now: datetime) -> tuple[str, ...]:
    """Give up backups that are older than `days`, but for the newest; returns their names.

    Contents that no backup on record has, and that are older than `GRACE`, are removed, such as what an
    interrupted backup left. Nothing is removed while a record cannot be read: what it needs is not known.
    """
    *older, newest = backup_names(place)
    given_up = []
    needed: set[str] = set()
    try:
        for name in (*older, newest):
            manifest = read_manifest(place, name)
            needed |= {object_name(part.sha256) for part in manifest.parts}
            if name != newest and manifest.ended_at < now - timedelta(days=days):
                with place.read(f"backups/{name}.json") as file:
                    place.write(f"expired/{name}.json", file.read())
                place.remove(f"backups/{name}.json")
                given_up.append(name)
        expired = place.found("expired")
        for name in backup_names(place, "expired"):
            needed |= {object_name(part.sha256) for part in read_manifest(place, name, "expired").parts}
    except BackupError as error:
        log.warning("nothing is removed: %s", error)
        return tuple(given_up)
    for name, found in expired.items():
        if found.written < now - GRACE:
            place.remove(name)
    for name, found in place.found("objects").items():
        if name not in needed and found.written < now - GRACE:
            place.remove(name)
    return tuple(given_up)
