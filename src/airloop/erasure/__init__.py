"""Erasing a subject: finding, deleting, proving, and never taking it in again.

Belongs here: everything about one erasure that needs no Spark and no Feast. Does not belong here: the online
store (`feature_repo.erase_online`), the job's command line (`spark_jobs.erasure`), the DAG.

No module of this package puts a subject in the clear into a result, an error, a log line or a file name: a
subject is named by its digest, a hash with the deployment's own key.
"""

from __future__ import annotations

from airloop.errors import AirloopError


class ErasureError(AirloopError):
    """A subject cannot be erased, or something of it is left."""
