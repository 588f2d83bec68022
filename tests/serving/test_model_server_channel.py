"""Where the servers behind a target are, and that clients see those that come and go behind a name."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serving.model_server_channel import addresses, certified_name, open_channel, stands_for_several

PORT = 18531
AGE_MILLISECONDS = 500


@pytest.mark.parametrize(
    ("target", "found", "several", "certified"),
    [
        ("model-server:8500", ("model-server:8500",), False, None),
        ("ipv4:10.0.0.1:85", ("ipv4:10.0.0.1:85",), True, None),
        ("ipv4:10.0.0.1:85,10.0.0.2:86", ("ipv4:10.0.0.1:85", "ipv4:10.0.0.2:86"), True, None),
        ("ipv6:[::1]:85,[::2]:86", ("ipv6:[::1]:85", "ipv6:[::2]:86"), True, None),
        ("dns:///127.0.0.1:85", ("ipv4:127.0.0.1:85",), True, "127.0.0.1"),
    ],
)
def test_a_scheme_stands_for_several(
    target: str, found: tuple[str, ...], several: bool, certified: str | None
) -> None:
    assert addresses(target) == found
    assert stands_for_several(target) is several
    assert certified_name(target) == certified


def test_every_address_that_a_name_has_is_one_server() -> None:
    expected = {
        f"ipv6:[{place[0]}]:85" if family == socket.AF_INET6 else f"ipv4:{place[0]}:85"
        for family, _, _, _, place in socket.getaddrinfo("localhost", 85, type=socket.SOCK_STREAM)
    }
    assert set(addresses("dns:///localhost:85")) == expected
    with pytest.raises(OSError, match=r"."):
        addresses("dns:///no-such-server.invalid:85")


class NameServer:
    """Says over UDP, for every name, the IPv4 addresses in `known`."""

    def __init__(self, known: list[str]) -> None:
        self.known = known
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(512)
            end = asked.index(0, 12) + 5
            (kind,) = struct.unpack(">H", asked[end - 4 : end - 2])
            found = [socket.inet_aton(one) for one in self.known] if kind == 1 else []
            header = asked[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
            records = (b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + one for one in found)
            self._socket.sendto(header + asked[12:end] + b"".join(records), client)


class SaysItsAddress(grpc.GenericRpcHandler):  # type: ignore[misc] # untyped library
    """Answers everything with its address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._address.encode())


@contextlib.contextmanager
def server(address: str) -> Iterator[grpc.Server]:
    """A server at `address` that has connections made anew twice a second."""
    started = grpc.server(ThreadPoolExecutor(4), options=(("grpc.max_connection_age_ms", AGE_MILLISECONDS),))
    started.add_generic_rpc_handlers((SaysItsAddress(address),))
    started.add_insecure_port(f"{address}:{PORT}")
    started.start()
    try:
        yield started
    finally:
        started.stop(5).wait()


def test_a_server_that_is_added_behind_a_name_is_asked_soon_and_one_that_leaves_fails_no_call() -> None:
    names = NameServer(["127.0.0.2", "127.0.0.3"])
    answered: Counter[str] = Counter()

    def ask_until(wanted: str) -> None:
        before, deadline = answered[wanted], time.monotonic() + 20
        while answered[wanted] < before + 20:
            assert time.monotonic() < deadline, answered
            answered[call(b"", timeout=5).decode()] += 1
            time.sleep(0.002)

    with (
        server("127.0.0.2") as first,
        server("127.0.0.3"),
        open_channel(f"dns://{names.place}/model-server:{PORT}", None, in_turn=True) as channel,
    ):
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        ask_until("127.0.0.2")
        ask_until("127.0.0.3")
        before = answered["127.0.0.3"]
        ask_until("127.0.0.2")
        assert answered["127.0.0.3"] > before
        with server("127.0.0.4"):
            names.known = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
            ask_until("127.0.0.4")
            names.known = ["127.0.0.3", "127.0.0.4"]
            first.stop(5)
            for _ in range(3):
                ask_until("127.0.0.4")
                ask_until("127.0.0.3")
