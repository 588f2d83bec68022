"""What spark-submit starts on EMR Serverless, which takes a file and no module: `airloop.remote_job`.

Belongs here: the way from the file to the module. Does not belong here: anything else.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # spark-submit puts this file's folder first, whose modules are not top-level ones.
    sys.path.pop(0)
    from airloop.remote_job import main

    sys.exit(main())
