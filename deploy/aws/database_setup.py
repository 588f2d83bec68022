"""Makes each database of `DATABASE_NAMES` with a login of its own; safe to repeat, and follows a changed
password.

Run by the task `setup` (`infrastructure/services.py`), which hands it the text of this file: so it stands
alone.
"""

from __future__ import annotations

import os

import psycopg2
from psycopg2 import sql


def set_up(host: str, port: int, user: str, passwords: dict[str, str]) -> None:
    """A login and a database for each name in `passwords`, where nobody else may connect."""
    connection = psycopg2.connect(
        host=host,
        port=port,
        user=user,
        password=os.environ["SECRET_DATABASE_MASTER"],
        dbname="postgres",
        sslmode=os.environ.get("PGSSLMODE", "require"),
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name, password in passwords.items():
            role = sql.Identifier(name)
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            change = (
                "ALTER ROLE {} LOGIN PASSWORD {}" if cursor.fetchone() else "CREATE ROLE {} LOGIN PASSWORD {}"
            )
            cursor.execute(sql.SQL(change).format(role, sql.Literal(password)))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if not cursor.fetchone():
                # RDS's master is no superuser: it may give away only what its own role is a member of.
                cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
            cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))
    connection.close()


if __name__ == "__main__":
    set_up(
        os.environ["DATABASE_HOST"],
        int(os.environ.get("DATABASE_PORT", "5432")),
        os.environ.get("DATABASE_USER", "airloop"),
        {
            name: os.environ[f"SECRET_DATABASE_{name.upper()}"]
            for name in os.environ["DATABASE_NAMES"].split()
        },
    )
