"""The gateway's process: `python -m serving.gateway`.

Belongs here: flags, and what is put together. Does not belong here: any behaviour.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing

import uvicorn
from feast import FeatureStore

from airloop.connections import PREDICTION_LOG, find_connection
from airloop.dotted import load
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.logs import configure_server
from airloop.prediction_log.forward import Forwarder
from airloop.prediction_log.logs import OUTCOMES, PREDICTIONS, Log
from airloop.prediction_log.spool import Spool
from airloop.settings import Settings, load_settings
from airloop.sources.kafka_connection import client_options
from airloop.traces import tracing
from airloop.use_cases.catalogue import all_use_cases
from serving.gateway.access import Access
from serving.gateway.app import create_app
from serving.gateway.online_features import OnlineFeatures
from serving.gateway.prediction_lines import log_predictions
from serving.model_server_client import ModelServer

SERVICE = "gateway"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns 0, or `EXIT_PERMANENT` when settings or specs are unusable."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description=__doc__)
    parser.add_argument("--host", help="address to listen on; by default the setting host")
    parser.add_argument("--port", type=int, help="port; by default the setting gateway_port")
    parser.add_argument("--predict-timeout", type=float, default=2.0, help="seconds for the model server")
    parser.add_argument(
        "--store",
        default="feature_repo.online:open_online_store",
        help="module:function that opens the feature store from the settings",
    )
    flags = parser.parse_args(argv)
    try:
        settings = load_settings()
    except AirloopError as error:
        configure_server(SERVICE, "text")
        return _unusable(error)
    configure_server(SERVICE, settings.log_format)
    log_predictions(SERVICE, settings.log_format)
    try:
        use_cases = tuple(spec for spec in all_use_cases() if spec.is_online)
        access = Access(settings.gateway_keys)
        model_server = ModelServer.of(settings)
        connection = find_connection(PREDICTION_LOG)
        kafka = client_options(connection) if connection is not None else None
    except AirloopError as error:
        return _unusable(error)
    features = OnlineFeatures(functools.partial(_open_store, flags.store, settings))
    with contextlib.ExitStack() as stack:
        tracer = stack.enter_context(tracing(settings, SERVICE))
        stack.enter_context(model_server)
        spool, outcomes = (_spool(stack, kept, settings, kafka) for kept in (PREDICTIONS, OUTCOMES))
        app = create_app(
            use_cases,
            features,
            model_server,
            predict_timeout=flags.predict_timeout,
            access=access,
            models_dir=settings.models_dir,
            spool=spool,
            outcomes=outcomes,
            tracer=tracer,
        )
        # Before anybody is let in: a gateway that is started under load would refuse its first hundreds.
        app.state.warm_up()
        # What is imported by now stays: looking through it for garbage now and then costs a request tens of
        # milliseconds now and then.
        gc.collect()
        gc.freeze()
        # uvicorn ends well, and then raises the signal again; by default that would end the process right
        # there, and lose what is left to write or to send.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
        uvicorn.run(
            app,
            host=flags.host or settings.host,
            port=flags.port or settings.gateway_port,
            access_log=False,
            log_config=None,
            server_header=False,
            ssl_certfile=settings.gateway_certificate,
            ssl_keyfile=settings.gateway_private_key,
            timeout_graceful_shutdown=10,
            # Longer than a proxy in front keeps its connections, so that it uses none that is being closed.
            timeout_keep_alive=75,
        )
    return 0


def _unusable(error: AirloopError) -> int:
    logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
    return EXIT_PERMANENT


def _spool(
    stack: contextlib.ExitStack, kept: Log, settings: Settings, kafka: Mapping[str, str] | None
) -> Spool:
    """The spool of a log, and what sends it to Kafka if that is configured; both end with `stack`."""
    spool = Spool(kept.folder(settings))
    if kafka is not None:
        # Entered before the spool, so that it ends after it and has its last records.
        stack.enter_context(closing(Forwarder(kept.folder(settings), spool.writer, kept.table, kafka)))
    stack.enter_context(closing(spool))
    return spool


def _open_store(path: str, settings: Settings) -> FeatureStore:
    # By name: the layers are independent, and only this process's edge knows both.
    store: FeatureStore = load(path)(settings)
    return store


if __name__ == "__main__":
    sys.exit(main())
