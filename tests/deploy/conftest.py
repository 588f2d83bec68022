"""What deploy/kubernetes becomes: rendered by the tools that people render it with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from airloop.settings import REPOSITORY

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
AIRFLOW = KUBERNETES / "airflow"
OVERLAYS = ("cpu", "gpu", "tpu")
TEMPLATES = {
    **{path.stem: path for path in (KUBERNETES / "base" / "pod-templates").glob("*.yaml")},
    **{f"training, {name}": KUBERNETES / "overlays" / name / "training.yaml" for name in ("gpu", "tpu")},
}
TOOLS = REPOSITORY / ".airloop" / "deploy"
CHART = REPOSITORY / (REPOSITORY / "requirements" / "chart.sha256").read_text("utf-8").split()[1]
Document = dict[str, Any]


def run(*command: str, given: str = "") -> str:
    """The output of a command that must end well."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def overlay_text(name: str) -> str:
    """An overlay as kustomize builds it."""
    return run(str(TOOLS / "bin" / "kubectl"), "kustomize", str(KUBERNETES / "overlays" / name))


@cache
def chart_text(*more: str) -> str:
    """Airflow's chart with our values, and `more` files of them; skips the test where the chart is not."""
    if not CHART.exists():
        pytest.skip(
            f"Airflow's chart is not at {CHART}: its site was not reached (make check-deploy says how)"
        )
    values = [part for file in (str(AIRFLOW / "values.yaml"), *more) for part in ("--values", file)]
    helm = str(TOOLS / "bin" / "helm")
    return run(helm, "template", "airflow", str(CHART), "--namespace", "airloop", *values)


def documents(text: str) -> list[Document]:
    """The resources of a text."""
    return [document for document in yaml.safe_load_all(text) if document]


def template(name: str) -> Document:
    """A pod template."""
    found: Document = yaml.safe_load(TEMPLATES[name].read_text("utf-8"))
    return found


def named(found: list[Document], kind: str, name: str) -> Document:
    """The one resource of that kind and name."""
    (one,) = (each for each in found if each["kind"] == kind and each["metadata"]["name"] == name)
    return one


def pods(found: list[Document]) -> Iterator[tuple[str, Document]]:
    """Name, and metadata and spec, of each pod that the resources make, and of those of tasks."""
    for document in found:
        kind, name = document["kind"], f"{document['kind']}/{document['metadata']['name']}"
        if kind in ("Deployment", "StatefulSet", "Job"):
            yield name, document["spec"]["template"]
        elif kind == "CronJob":
            yield name, document["spec"]["jobTemplate"]["spec"]["template"]
        elif kind == "ConfigMap" and document["metadata"]["name"] == "airloop-pod-templates":
            for file, text in document["data"].items():
                yield f"{name}/{file}", yaml.safe_load(text)
        else:
            assert kind not in ("Pod", "DaemonSet", "ReplicaSet"), f"{name} is not looked at by these tests"


def containers(pod: Document) -> list[Document]:
    """All containers of a pod."""
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def matches(selector: Document, pod: Document) -> bool:
    """Whether a selector takes a pod; of the kinds of selector that are used here."""
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= pod["metadata"]["labels"].items()
