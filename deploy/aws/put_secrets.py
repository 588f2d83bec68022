"""Makes and stores the secrets that no random text can be: `python deploy/aws/put_secrets.py --environment
NAME`.

A certificate for what stands behind the load balancers, the pair of keys that models are signed with, and the
gateway's first API keys. A secret that was written before is left as it is, unless `--replace` names it: a
new pair of signing keys makes all signed versions unusable. What the gateway's clients need is printed once.

The load balancers do not look at the certificates behind them; theirs keeps the last stretch from being read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.gateway.access import Role, add

CLIENTS = {"first-client": Role.PREDICT, "operator": Role.OPERATE}
"""The gateway's first API keys: name and role."""
VALID_DAYS = 825
_WRITTEN = "airloop:written"
"""Tag of a secret that holds what this wrote."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is not written yet; returns 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", required=True, help="as in deployment.toml")
    parser.add_argument("--region", help="by default the credentials' own")
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        choices=("gateway-keys", "signing", "tls"),
        help="write it anew",
    )
    flags = parser.parse_args(argv)
    put_all(boto3.client("secretsmanager", region_name=flags.region), flags.environment, flags.replace)
    return 0


def put_all(manager: Any, environment: str, replace: Sequence[str] = ()) -> None:
    """Write each group of secrets that was not written yet, or that `replace` names."""
    prefix = f"airloop/{environment}"
    groups = {
        "tls": (lambda: {"tls": json.dumps(_tls())}),
        "signing": _signing,
        "gateway-keys": _gateway_keys,
    }
    first = {"tls": "tls", "signing": "signing-key", "gateway-keys": "gateway-keys"}
    for group, make in groups.items():
        tags = manager.describe_secret(SecretId=f"{prefix}/{first[group]}").get("Tags", [])
        if group not in replace and any(tag["Key"] == _WRITTEN for tag in tags):
            print(f"{group}: written before, left as it is")
            continue
        for name, text in make().items():
            manager.put_secret_value(SecretId=f"{prefix}/{name}", SecretString=text)
            manager.tag_resource(
                SecretId=f"{prefix}/{name}",
                Tags=[{"Key": _WRITTEN, "Value": datetime.now(UTC).date().isoformat()}],
            )
        print(f"{group}: written")


def _private_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _tls() -> dict[str, str]:
    """A key and its own certificate, and both as TensorFlow Serving reads them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "airloop.internal")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("airloop.internal")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = _private_text(key)
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return {
        "certificate": public,
        "private_key": private,
        # Text protobuf takes JSON's strings.
        "ssl_config": f"server_key: {json.dumps(private)}\nserver_cert: {json.dumps(public)}\n",
    }


def _signing() -> dict[str, str]:
    """The pair of keys of docs/how-to/sign-models.md."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"signing-key": _private_text(key), "verification-key": public.decode()}


def _gateway_keys() -> dict[str, str]:
    """The gateway's file of digests; the keys themselves are printed, and nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway-keys.json"
        for name, role in CLIENTS.items():
            print(f"gateway key of {name} ({role}): {add(file, name, [role])}")
        return {"gateway-keys": file.read_text("utf-8")}


if __name__ == "__main__":
    sys.exit(main())
