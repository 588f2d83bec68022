"""TLS on both sides of the gateway: its clients, and the model server."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from airloop.errors import SettingsError
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from serving.model_server_client import ModelServer, ModelServerDown
from tests.serving.rollout.stack import free_port, process, wait_until

SUBJECT = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def test_both_sides_speak_tls_and_nothing_else(tmp_path: Path) -> None:
    key, certificate, config = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "ssl.config"
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *SUBJECT)
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    config.write_text(
        f"server_key: {key.read_text('utf-8')!r} server_cert: {certificate.read_text('utf-8')!r}", "utf-8"
    )
    settings = Settings(
        state_dir=tmp_path / "state",
        gateway_port=free_port(),
        model_server_grpc_port=free_port(),
        model_server_authority=certificate,
        gateway_certificate=certificate,
        gateway_private_key=key,
    )
    settings.models_dir.mkdir(parents=True)
    settings.model_config_file.write_text("model_config_list {}", "utf-8")
    server = [
        *("-m", "serving.model_server", f"--port={settings.model_server_grpc_port}"),
        *(f"--model_config_file={settings.model_config_file}", f"--ssl_config_file={config}"),
    ]
    gateway = ["-m", "serving.gateway", "--store=tests.serving.gateway.small_store:open_small_store"]
    trusted = ssl.create_default_context(cafile=str(certificate))
    with (
        process(server, settings, tmp_path / "model_server.log"),
        process(gateway, settings, tmp_path / "gateway.log"),
        httpx.Client(base_url=settings.gateway_url, verify=trusted, timeout=30, trust_env=False) as client,
    ):

        def lacking() -> list[str]:
            try:
                faults = client.get("/readyz").json()["lacking"][USE_CASE.name]
            except httpx.TransportError:
                return []
            return [fault["type"] for fault in faults]

        # NoChampion is what a model server says that was reached and has no model.
        wait_until(lambda: "NoChampion" in lacking(), seconds=120, what="both are reached")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{settings.gateway_port}/healthz", timeout=10, trust_env=False)
        with ModelServer(settings.model_server_address) as plain, pytest.raises(ModelServerDown):
            plain.states("none")


def test_an_authority_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, model_server_authority=tmp_path / "gone.pem")
    with pytest.raises(SettingsError, match="AIRLOOP_MODEL_SERVER_AUTHORITY"):
        ModelServer.of(settings)
