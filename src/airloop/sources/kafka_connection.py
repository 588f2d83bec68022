"""A Kafka broker's address and secrets: one Airflow connection, for the two clients that need it.

Belongs here: translating the connection. Does not belong here: producing or consuming.

The connection is written as Airflow's own Kafka provider reads it: `extra` has librdkafka's configuration
(`bootstrap.servers`, `security.protocol`, `sasl.mechanism`, `sasl.username`, `sasl.password`,
`ssl.ca.location`, ...); `host` and `port`, `login` and `password` serve where `extra` lacks the address or
the user. Spark's connector is a Java client, which spells a few of these otherwise.
"""

from __future__ import annotations

from airloop.connections import Connection
from airloop.errors import SettingsError

BOOTSTRAP = "bootstrap.servers"
_JAVA_ONLY = ("sasl.jaas.config", "ssl.truststore.", "ssl.keystore.type", "ssl.keystore.certificate.chain")
_SCRAM_OR_PLAIN = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def client_options(connection: Connection) -> dict[str, str]:
    """Configuration of a librdkafka client.

    Raises `SettingsError` when the connection has no address.
    """
    options = _options(connection)
    return {name: value for name, value in options.items() if not name.startswith(_JAVA_ONLY)}


def spark_options(connection: Connection) -> dict[str, str]:
    """Options of Spark's Kafka source: the Java client's configuration, each with the prefix `kafka.`.

    Raises `SettingsError` when the connection has no address, or a mechanism that needs a `sasl.jaas.config`
    has none.
    """
    options = _options(connection)
    user, password = options.pop("sasl.username", None), options.pop("sasl.password", None)
    mechanism = options.pop("sasl.mechanisms", options.get("sasl.mechanism"))
    if mechanism:
        options["sasl.mechanism"] = mechanism
    if user is not None and "sasl.jaas.config" not in options:
        if mechanism not in _SCRAM_OR_PLAIN:
            raise SettingsError(
                expected=f"sasl.mechanism of connection {connection.id} to be one of "
                f"{', '.join(_SCRAM_OR_PLAIN)}, or a sasl.jaas.config beside it",
                found=repr(mechanism),
                next_step="correct the connection's extra",
            )
        options["sasl.jaas.config"] = (
            f"{_SCRAM_OR_PLAIN[mechanism]} required "
            f'username="{_quoted(user)}" password="{_quoted(password or "")}";'
        )
    authority = options.pop("ssl.ca.location", None)
    if authority is not None:
        options.setdefault("ssl.truststore.type", "PEM")
        options.setdefault("ssl.truststore.location", authority)
    return {f"kafka.{name}": value for name, value in options.items()}


def _options(connection: Connection) -> dict[str, str]:
    options = {name: str(value) for name, value in connection.extra.items()}
    if BOOTSTRAP not in options:
        if not connection.host:
            raise SettingsError(
                expected=f"connection {connection.id} to have a host, or {BOOTSTRAP!r} in its extra",
                found="neither",
                next_step="add the broker's address to the connection",
            )
        options[BOOTSTRAP] = f"{connection.host}:{connection.port or 9092}"
    if connection.login:
        options.setdefault("sasl.username", connection.login)
        options.setdefault("sasl.password", connection.secret)
    return options


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
