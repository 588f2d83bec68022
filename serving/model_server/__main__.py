"""The command line: `python -m serving.model_server`, with TensorFlow Serving's flags.

Belongs here: the process (flags, signals, exit status). Does not belong here: serving (`server`).
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from types import FrameType

from opentelemetry.trace import Tracer

from airloop.errors import AirloopError
from airloop.logs import configure_server
from airloop.settings import load_settings
from airloop.traces import tracing
from serving.model_server.config import read_config_file
from serving.model_server.errors import ServingError
from serving.model_server.settings import Settings, parse_settings

SERVICE = "model-server"


def main() -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean end, 1 when serving could not start."""
    settings = parse_settings(sys.argv[1:])
    try:
        deployment = load_settings()
    except AirloopError as error:
        print(f"model server: {error}", file=sys.stderr)
        return 1
    configure_server(SERVICE, deployment.log_format)
    stopping = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        # A second signal ends the process at once.
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with tracing(deployment, SERVICE) as tracer:
        return _serve(settings, tracer, stopping)


def _serve(settings: Settings, tracer: Tracer | None, stopping: threading.Event) -> int:
    try:
        if settings.model_config_file is not None:
            read_config_file(settings.model_config_file)
        # Only now, because importing TensorFlow takes seconds and a wrong configuration need not wait.
        from serving.model_server.server import ModelServer

        server = ModelServer(settings, tracer)
        server.start()
        # What is there by now stays: looking through it for garbage would hold up a request now and then.
        gc.collect()
        gc.freeze()
    except ServingError as error:
        print(f"model server: {error.message}", file=sys.stderr)
        return 1
    stopping.wait()
    logging.getLogger(__name__).info("Stopping: no new requests; those under way finish")
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
