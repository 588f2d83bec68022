"""The programs that delivery is checked with, from the locked environment or set-up.

Belongs here: where they are. Does not belong here: tests.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from airloop.settings import REPOSITORY


def program(name: str) -> str:
    """The program's path; fails the test when set-up has not brought it."""
    places = (str(Path(sys.prefix) / "bin"), str(REPOSITORY / ".airloop" / "bin"))
    found = shutil.which(name, path=os.pathsep.join(places))
    assert found is not None, f"{name} is in none of {', '.join(places)}: make setup-tests brings it"
    return found
