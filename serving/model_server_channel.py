"""gRPC channels to model servers: where the servers are, how they are balanced, retried and trusted.

Belongs here: targets, addresses and channel options. Does not belong here: calls (`model_server_client`).

A target with a scheme stands for several servers: `dns:///<name>:<port>` for every address that the name has,
`ipv4:<address>:<port>,...` (or `ipv6:`) for those listed. One without is one server.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any, Final

import grpc

_LISTED: Final = ("ipv4:", "ipv6:")
_NAMED: Final = re.compile(r"dns:///(?P<host>.+):(?P<port>\d+)")
_PREDICT: Final = {"service": "tensorflow.serving.PredictionService", "method": "Predict"}

# gRPC's own retries, with its own budget: once half of the tokens are spent, none is retried; a failure costs
# one, and a good answer brings back a tenth. Only Predict, which changes nothing, and only a server that is
# not there, is full, or stops: calls that it has read but not begun then end as CANCELLED. A late one would
# be later still.
_SERVICE_CONFIG: Final[dict[str, Any]] = {
    "methodConfig": [
        {
            "name": [_PREDICT],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}
# Of several servers the next one is asked then. One that is killed fails its share of the gateway's 64
# requests at once: those are within this budget.
_IN_TURN: Final[dict[str, Any]] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
_OPTIONS: Final = (
    # A model server that comes back is found again within a second; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A name is asked for again as soon as a connection ends; gRPC would wait half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)


def stands_for_several(target: str) -> bool:
    """Whether there may be more than one server behind `target`, now or later."""
    return target.startswith(_LISTED) or _NAMED.fullmatch(target) is not None


def addresses(target: str) -> tuple[str, ...]:
    """The targets of the servers that `target` stands for now, one of each, in order.

    Raises `OSError` where a name is not known, as when it has no server at all.
    """
    if target.startswith(_LISTED):
        scheme, listed = target.split(":", 1)
        return tuple(f"{scheme}:{address}" for address in listed.split(","))
    named = _NAMED.fullmatch(target)
    if named is None:
        return (target,)
    found = socket.getaddrinfo(named["host"], int(named["port"]), type=socket.SOCK_STREAM)
    return tuple(sorted({_address(family, place) for family, _, _, _, place in found}))


def open_channel(
    target: str, authority: bytes | None, *, certified: str | None = None, in_turn: bool | None = None
) -> grpc.Channel:
    """A channel to the server behind `target`, or to its servers, which are asked in turn.

    `authority` is the certificate (PEM) by which theirs are known; plain text without it. They are made out
    for `certified`, by default the name, or the address, in `target`. Servers are asked `in_turn`, by default
    where the target stands for several.
    """
    in_turn = stands_for_several(target) if in_turn is None else in_turn
    balanced = _SERVICE_CONFIG | (_IN_TURN if in_turn else {})
    options = (("grpc.service_config", json.dumps(balanced)), *_OPTIONS)
    if authority is None:
        return grpc.insecure_channel(target, options=options)
    if certified is None and target.startswith(_LISTED):
        # Of a list gRPC would look for all of it in each certificate.
        certified = _host(target.split(",")[0].split(":", 1)[1])
    named = (("grpc.ssl_target_name_override", certified),) if certified is not None else ()
    trusted = grpc.ssl_channel_credentials(root_certificates=authority)
    return grpc.secure_channel(target, trusted, options=(*options, *named))


def certified_name(target: str) -> str | None:
    """The name that the certificate of every server behind `target` is made out for, if they share one."""
    named = _NAMED.fullmatch(target)
    return named["host"] if named is not None else None


def _host(place: str) -> str:
    return place.rsplit(":", 1)[0].strip("[]")


def _address(family: int, place: tuple[Any, ...]) -> str:
    host, port = place[:2]
    return f"ipv6:[{host}]:{port}" if family == socket.AF_INET6 else f"ipv4:{host}:{port}"
