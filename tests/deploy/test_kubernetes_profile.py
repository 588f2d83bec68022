"""What the code and deploy/kubernetes agree on; nothing is rendered here, so `make test` holds it too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from typing import Any, get_args

import pytest
import yaml

from airloop.compute import Group
from airloop.settings import PREFIX, PROFILES, REPOSITORY, Settings, load_settings
from airloop.stack.programs import metrics
from scripts.prometheus_rules import RESOURCE, resource
from tests.deploy.conftest import AIRFLOW, KUBERNETES, TEMPLATES, containers, template

VALUES = yaml.safe_load((AIRFLOW / "values.yaml").read_text("utf-8"))
BASE = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text("utf-8"))
SETTINGS = dict(
    literal.split("=", 1)
    for generator in BASE["configMapGenerator"]
    if generator["name"] == "airloop-settings"
    for literal in generator["literals"]
)
HOW_TO = REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
POLICY = """
import json, os, sys
from types import SimpleNamespace as Of
from airflow import settings

def images():
    containers = [Of(image="airloop-worker-data:0.1.0"), Of(image="redis:8")]
    settings.pod_mutation_hook(Of(spec=Of(init_containers=None, containers=containers)))
    return [container.image for container in containers]

templates = {}
for queue in sys.argv[1:]:
    instance = Of(queue=queue, executor_config=None)
    settings.task_instance_mutation_hook(instance)
    templates[queue] = (instance.executor_config or {}).get("pod_template_file")
without = images()
os.environ["WORKER_IMAGES"] = "registry.example.com/ml/airloop-{group}:7"
print(json.dumps({"templates": templates, "without": without, "with": images()}))
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow itself makes of the policy, for task instances of some queues and for pods."""
    done = subprocess.run(
        [sys.executable, "-c", POLICY, *get_args(Group), "default"],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "PYTHONPATH": os.pathsep.join([str(AIRFLOW), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", ["default", *TEMPLATES])
def test_the_profile_and_what_a_tasks_pod_gets_are_whole_settings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [variable for variable in os.environ if variable.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    given = {item["name"]: item["value"] for item in template(name)["spec"]["containers"][0]["env"]}
    for variable, value in {**SETTINGS, **given}.items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.profile == "kubernetes"
    assert settings.model_server_address == "dns:///model-server:8500"
    assert settings.catalog_uri == SETTINGS["AIRLOOP_CATALOG_URI"]
    assert (settings.signing_key is not None) == name.startswith("training")
    for key in filter(None, (settings.signing_key, settings.verification_key)):
        mounts = [mount["mountPath"] for mount in template(name)["spec"]["containers"][0]["volumeMounts"]]
        assert str(key.parent) in mounts


def test_a_cluster_that_names_no_databases_is_told_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AIRLOOP_PROFILE", "kubernetes")
    with pytest.raises(Exception, match=r"WAREHOUSE_URI.*CATALOG_URI.*FEAST_REGISTRY"):
        load_settings()


def test_every_airloop_variable_is_a_setting() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    texts = [path.read_text("utf-8") for path in KUBERNETES.rglob("*.yaml")]
    found = set(re.findall(rf"\b{PREFIX}[A-Z_]+", "".join(texts)))
    assert "AIRLOOP_GATEWAY_KEYS" in found
    assert found - known == set()


def test_the_profiles_file_says_nothing_that_the_manifests_say_too() -> None:
    profile = tomllib.loads((REPOSITORY / PROFILES / "kubernetes.toml").read_text("utf-8"))
    assert {PREFIX + name.upper() for name in profile}.isdisjoint(SETTINGS)


def test_the_values_hold_the_policy_as_it_is_tested() -> None:
    text = (AIRFLOW / "airflow_local_settings.py").read_text("utf-8")
    assert VALUES["airflowLocalSettings"] == text
    assert "{{" not in text, "the chart renders it as a template"


def test_each_groups_queue_gets_its_pod_and_every_other_the_default(policy: dict[str, Any]) -> None:
    groups = get_args(Group)
    assert set(groups) < TEMPLATES.keys()
    mounted = next(
        mount["mountPath"]
        for mount in VALUES["scheduler"]["extraVolumeMounts"]
        if mount["name"] == "pod-templates"
    )
    assert policy["templates"] == {**{group: f"{mounted}/{group}.yaml" for group in groups}, "default": None}
    assert VALUES["config"]["kubernetes_executor"]["pod_template_file"] == f"{mounted}/default.yaml"


def test_a_clusters_registry_is_where_its_tasks_images_come_from(policy: dict[str, Any]) -> None:
    assert policy["without"] == ["airloop-worker-data:0.1.0", "redis:8"]
    assert policy["with"] == ["registry.example.com/ml/airloop-worker-data:7", "redis:8"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_the_default_and_what_its_group_needs(name: str) -> None:
    """So that a change of one that all need is a change of all."""

    def common(which: str) -> Any:
        pod = template(which)
        del pod["metadata"]["labels"]["airloop/group"]
        spec = pod["spec"]
        for key in ("nodeSelector", "tolerations"):
            spec.pop(key, None)
        for container in containers(pod):
            del container["image"]
        del spec["containers"][0]["resources"]
        own = ("signing-key", "shared-memory")
        base = spec["containers"][0]
        base["env"] = [
            item for item in base["env"] if item["name"] not in ("AIRLOOP_SIGNING_KEY", "TPU_NAME")
        ]
        base["volumeMounts"] = [mount for mount in base["volumeMounts"] if mount["name"] not in own]
        spec["volumes"] = [
            {**volume, **({"emptyDir": {}} if volume["name"] == "temporary" else {})}
            for volume in spec["volumes"]
            if volume["name"] not in own
        ]
        return pod

    assert common(name) == common("default")


def guides_images() -> dict[str, list[str]]:
    """Dependency groups of each image that the guide has people build."""
    rows = re.findall(r"^\| `airloop-([a-z-]+)` \| `([a-z -]+)` \|", HOW_TO.read_text("utf-8"), re.MULTILINE)
    return {image: groups.split() for image, groups in rows}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_tasks_image_has_airflow_and_its_group(name: str) -> None:
    (image,) = {container["image"] for container in containers(template(name))}
    image, _, tag = image.removeprefix("airloop-").partition(":")
    assert tag == PROJECT["project"]["version"]
    if name == "training, tpu":
        # There is no TensorFlow for TPUs as new as the one of the locks: that image is not built from them.
        assert image not in guides_images()
        return
    group = {"default": "airflow", "training, gpu": "training-gpu"}.get(name, name)
    assert {"airflow", group} <= set(guides_images()[image])


def test_images_are_of_groups_that_are_locked() -> None:
    images = guides_images()
    assert len(images) >= 6
    locked = {path.stem for path in (REPOSITORY / "requirements").glob("*.lock")}
    for groups in images.values():
        assert set(groups) <= PROJECT["dependency-groups"].keys() & locked


def test_trainings_get_what_their_overlay_is_for() -> None:
    for name, resource_name in (("gpu", "nvidia.com/gpu"), ("tpu", "google.com/tpu")):
        spec = template(f"training, {name}")["spec"]
        assert spec["containers"][0]["resources"]["limits"][resource_name] == "1"
        assert spec["nodeSelector"]
        assert {"key": resource_name, "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_a_job_fits_its_pod() -> None:
    profile = tomllib.loads((REPOSITORY / PROFILES / "kubernetes.toml").read_text("utf-8"))
    spark, training = (template(name)["spec"]["containers"][0]["resources"] for name in ("spark", "training"))
    assert profile["spark_master"] == f"local[{spark['limits']['cpu']}]"
    # Python's workers and what Java has beside its heap need the rest.
    assert profile["spark_driver_memory_mib"] <= 0.7 * 1024 * int(
        spark["limits"]["memory"].removesuffix("Gi")
    )
    assert profile["training_threads"] == int(training["limits"]["cpu"])


def test_airflow_sends_its_metrics_as_the_local_stack_does() -> None:
    expected = metrics(Settings(statsd_address="statsd-exporter:9125"))
    assert {
        f"METRICS__{name.upper()}": str(value) for name, value in VALUES["config"]["metrics"].items()
    } == expected


def test_no_dag_and_no_plugin_knows_kubernetes() -> None:
    folders = (REPOSITORY / "dags", REPOSITORY / "plugins")
    knows = re.compile(r"pod_override|pod_template|KubernetesPodOperator|kubernetes\.client")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(files) > 10
    assert [path for path in files if knows.search(path.read_text("utf-8"))] == []


def test_the_operators_rules_are_prometheus_rules() -> None:
    assert RESOURCE.read_text("utf-8") == resource(), "run python scripts/prometheus_rules.py"


def test_the_guide_names_every_secret_that_must_be_there() -> None:
    texts = [path.read_text("utf-8") for path in KUBERNETES.rglob("*.yaml")]
    found = set(re.findall(r"[sS]ecretName: ([a-z-]+)", "".join(texts)))
    assert {"database", "airflow-metadata", "gateway-keys"} < found
    guide = HOW_TO.read_text("utf-8")
    assert [name for name in sorted(found) if f"secret generic {name}" not in guide] == []
