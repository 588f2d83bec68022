"""Backups of what cannot be rebuilt, and restoring them into an empty deployment.

Belongs here: copying out of a deployment and back into one. Does not belong here: what the copies mean to
those who wrote them (their own modules), or data retention (`spark_jobs.maintenance`).

**The order.** A running deployment is copied part by part, and goes on meanwhile. What refers to something is
copied before what it refers to, and what is moved from before what it is moved to: Airflow's database; the
spools and usage files, which move into tables; the audit log and what says which version serves; MLflow's
database; tuning's and Feast's; the catalog's pointers; last the files that those point to, and the artifacts
of registered models. So each reference in a backup finds its target, and a record that moved meanwhile is
there twice (landing takes it once) and never missing. The list of the erased comes after all tables: a
subject can be on the list and still in the tables, in which case the restore says that the erasure is to be
made again, and never the other way round.

Restoring goes the other way: what is referred to first.
"""

from airloop.errors import AirloopError


class BackupError(AirloopError):
    """A backup cannot be made, is not what it was, or does not fit the deployment."""
