"""The manifests as a cluster gets them: valid, locked down, and at one with each other. `make check-deploy`.

What kustomize and Helm render is held against Kubernetes' own schemas by kubeconform. No cluster ran it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import generate_latest

from airloop.compute import Group
from airloop.prediction_log.forward import FLUSH_SECONDS
from airloop.settings import REPOSITORY
from scripts.deploy_tools import KUBERNETES as VERSIONS
from serving.gateway.request_context import Metrics
from tests.deploy.conftest import (
    AIRFLOW,
    KUBERNETES,
    OVERLAYS,
    TEMPLATES,
    TOOLS,
    Document,
    chart_text,
    containers,
    documents,
    matches,
    named,
    overlay_text,
    pods,
    run,
)

pytestmark = pytest.mark.deploy

EXACT_IMAGE = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[0-9a-z.-]+)?")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text("utf-8"))["services"]
RENDERED = [*OVERLAYS, "chart"]
TEMPLATE_FOLDER = "/opt/airloop/pod-templates"
MAKE_PODS = """
import json, sys
from airflow import settings
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import get_base_pod_from_template
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import ApiClient
config = KubeConfig()
for template in (*sys.argv[1:], None):
    pod = PodGenerator.construct_pod(
        dag_id="flight_delay_training", task_id="train", pod_id="train-1", try_number=1, date=None,
        run_id="manual", kube_image=config.kube_image, args=["python", "-m", "a.task"],
        pod_override_object=None, base_worker_pod=get_base_pod_from_template(template, config),
        namespace="airloop", scheduler_job_id="1", with_mutation_hook=True,
    )
    print(json.dumps(ApiClient().sanitize_for_serialization(pod)))
"""


def text_of(rendered: str) -> str:
    return chart_text() if rendered == "chart" else overlay_text(rendered)


@cache
def all_documents(rendered: str) -> list[Document]:
    return documents(text_of(rendered))


WITH_CHART = pytest.mark.parametrize("charted", [False, True], ids=["ours", "ours and the chart's"])


def everything(charted: bool) -> list[Document]:
    """What is ours, and with `charted` what the chart renders of our values beside it."""
    return [*all_documents("gpu"), *(all_documents("chart") if charted else [])]


def is_airflows(selector: Document) -> bool:
    """Whether a selector is of pods that the chart makes."""
    return "tier" in selector.get("matchLabels", {})


def conform(text: str, version: str) -> subprocess.CompletedProcess[str]:
    schemas = TOOLS / "schemas"
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    command = [
        *(str(TOOLS / "bin" / "kubeconform"), "-strict", "-summary", "-output", "json"),
        *("-schema-location", f"{schemas / version}/{name}"),
        *("-schema-location", f"{schemas / 'operator'}/{name}"),
    ]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rendered", RENDERED)
def test_every_resource_is_valid(rendered: str, version: str) -> None:
    done = conform(text_of(rendered), version)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary["valid"] == len(all_documents(rendered)) > 10
    assert summary["skipped"] == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_pod_template_is_valid(name: str, version: str) -> None:
    done = conform(TEMPLATES[name].read_text("utf-8"), version)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("Deployment", {"spec": {"replica": 2}}),
        ("ServiceMonitor", {"spec": {"endpoints": [{"portt": "http"}]}}),
        ("PrometheusRule", {"spec": {"groups": [{"name": "a", "rules": [{"alert": "B"}]}]}}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind: str, wrong: Document) -> None:
    document = next(each for each in all_documents("gpu") if each["kind"] == kind)
    broken = {**document, "spec": {**document["spec"], **wrong["spec"]}}
    done = conform(yaml.safe_dump(broken), VERSIONS[-1])
    assert done.returncode != 0
    assert json.loads(done.stdout)["summary"]["invalid"] == 1


@pytest.mark.parametrize("rendered", RENDERED)
def test_every_container_is_locked_down_and_limited(rendered: str) -> None:
    seen = 0
    for name, pod in pods(all_documents(rendered)):
        spec = pod["spec"]
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not spec.get(key), name
        assert not any("hostPath" in volume for volume in spec.get("volumes") or []), name
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        for container in containers(pod):
            where = f"{name}: {container['name']}"
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert not own.get("privileged"), where
            assert "runAsUser" not in own, where
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys(), where
            assert EXACT_IMAGE.fullmatch(container["image"]), where
            seen += 1
    assert seen >= 8


@WITH_CHART
def test_a_container_writes_only_where_something_is_mounted_and_tmp_is(charted: bool) -> None:
    for name, pod in pods(everything(charted)):
        for container in pod["spec"]["containers"]:
            if container["name"] == "statsd-exporter":
                continue
            paths = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert paths & {"/tmp", "/data"}, name


@WITH_CHART
def test_what_a_pod_mounts_and_reads_is_there(charted: bool) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in everything(charted)}
    if not charted:
        there.add(("ConfigMap", "airflow-config"))
    for name, pod in pods(everything(charted)):
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
        assert ("ServiceAccount", spec["serviceAccountName"]) in there, name
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there, name
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there, name
        for container in containers(pod):
            for source in container.get("envFrom") or []:
                assert ("ConfigMap", source["configMapRef"]["name"]) in there, name
            for mount in container["volumeMounts"]:
                claims = [each["metadata"]["name"] for each in _claims("gpu")]
                assert mount["name"] in volumes.keys() | set(claims), name


def _claims(rendered: str) -> Iterator[Document]:
    for document in all_documents(rendered):
        yield from (
            document["spec"].get("volumeClaimTemplates", []) if document["kind"] == "StatefulSet" else []
        )


def test_a_token_for_kubernetes_is_with_airflow_alone() -> None:
    accounts = {
        each["metadata"]["name"]: each for each in all_documents("gpu") if each["kind"] == "ServiceAccount"
    }
    assert "airloop-jobs" in accounts
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())
    for name, pod in pods(all_documents("gpu")):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
    bound = {
        subject["name"]
        for each in all_documents("chart")
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in each["subjects"]
    }
    assert bound
    assert bound.isdisjoint(accounts)
    assert not any(each["kind"].startswith("Cluster") for each in all_documents("chart"))


def test_airflows_secrets_are_not_with_the_tasks_nor_in_the_release() -> None:
    for name, pod in pods(all_documents("gpu")):
        assert not re.search(r"airflow-(metadata|fernet-key|api-secret-key|jwt-secret)", str(pod)), name
    made = {each["metadata"]["name"] for each in all_documents("chart") if each["kind"] == "Secret"}
    # The chart always makes it: the address of a Celery broker that there is not.
    assert made == {"airflow-broker-url"}
    scheduler = named(all_documents("chart"), "Deployment", "airflow-scheduler")
    environment = {
        item["name"]: item["valueFrom"]["secretKeyRef"]["name"]
        for item in scheduler["spec"]["template"]["spec"]["containers"][0]["env"]
        if "valueFrom" in item
    }
    assert environment == {
        "AIRFLOW__CORE__FERNET_KEY": "airflow-fernet-key",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-metadata",
        "AIRFLOW__API__SECRET_KEY": "airflow-api-secret-key",
        "AIRFLOW__API_AUTH__JWT_SECRET": "airflow-jwt-secret",
    }


@pytest.mark.parametrize("rendered", RENDERED)
def test_each_budget_and_service_selects_pods_and_finds_their_ports(rendered: str) -> None:
    found = list(pods(all_documents(rendered)))
    selecting = [
        each for each in all_documents(rendered) if each["kind"] in ("PodDisruptionBudget", "Service")
    ]
    assert len(selecting) >= 3
    for document in selecting:
        selector = document["spec"]["selector"]
        if document["kind"] == "Service":
            selector = {"matchLabels": selector}
        taken = [pod for _, pod in found if matches(selector, pod)]
        assert len(taken) == 1, document["metadata"]["name"]
        ports = {
            key: port
            for container in containers(taken[0])
            for port in container.get("ports", [])
            for key in (port["name"], port["containerPort"])
        }
        for port in document["spec"].get("ports", []):
            target = ports[port.get("targetPort", port["port"])]
            assert target.get("protocol", "TCP") == port.get("protocol", "TCP")
            assert target["containerPort"] == port["port"]


def test_monitors_read_a_port_that_a_service_has() -> None:
    found = all_documents("gpu")
    services = [each for each in found if each["kind"] == "Service"]
    jobs = []
    for monitor in (each for each in found if each["kind"] == "ServiceMonitor"):
        (service,) = (each for each in services if matches(monitor["spec"]["selector"], each))
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        jobs += [each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"]
    prometheus = yaml.safe_load(
        (REPOSITORY / "serving" / "observability" / "prometheus.yml").read_text("utf-8")
    )
    configured = {each["job_name"] for each in prometheus["scrape_configs"]} - {"prometheus"}
    assert set(jobs) == configured


def _allows(rule: Document, pod: Document, port: Document) -> bool:
    """Whether an ingress rule lets in what a pod of ours sends to the port."""
    ports = [(each["port"], each.get("protocol", "TCP")) for each in rule["ports"]]
    peers = [peer for peer in rule["from"] if "podSelector" in peer]
    return (port["port"], port.get("protocol", "TCP")) in ports and any(
        matches(peer["podSelector"], pod) for peer in peers
    )


@WITH_CHART
def test_nothing_is_let_through_but_what_policies_say_and_they_say_it_at_both_ends(charted: bool) -> None:
    policies = [each["spec"] for each in all_documents("gpu") if each["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    everyone = [pod for _, pod in pods(everything(charted))]
    crossings = 0
    for policy in policies:
        if is_airflows(policy["podSelector"]) and not charted:
            continue
        taken = [pod for pod in everyone if matches(policy["podSelector"], pod)]
        assert taken, policy["podSelector"]
        listened = {
            (port["containerPort"], port.get("protocol", "TCP"))
            for pod in taken
            for container in containers(pod)
            for port in container.get("ports", [])
        }
        for rule in policy.get("ingress", []):
            assert {(port["port"], port.get("protocol", "TCP")) for port in rule["ports"]} <= listened
            for peer in rule["from"]:
                if "podSelector" in peer and (charted or not is_airflows(peer["podSelector"])):
                    assert any(matches(peer["podSelector"], pod) for pod in everyone), peer
                elif "namespaceSelector" in peer:
                    assert peer["namespaceSelector"]["matchLabels"].keys() == {"airloop/access"}
        for rule in policy.get("egress", []):
            for peer in rule.get("to", []):
                if "podSelector" not in peer or (is_airflows(peer["podSelector"]) and not charted):
                    continue
                targets = [pod for pod in everyone if matches(peer["podSelector"], pod)]
                assert targets, peer
                for port in rule["ports"]:
                    crossings += 1
                    for target in targets:
                        for pod in taken:
                            assert any(
                                _allows(entry, pod, port)
                                for other in policies
                                if matches(other["podSelector"], target)
                                for entry in other.get("ingress", [])
                            ), (pod["metadata"]["labels"], target["metadata"]["labels"], port)
    assert crossings >= (7 if charted else 4)


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [("gateway", "model-server"), ("gateway", "redis"), ("task", "mlflow"), ("task", "model-server")],
)
def test_who_must_reach_whom_does(sender: str, receiver: str) -> None:
    (spec,) = (
        each["spec"]
        for each in all_documents("gpu")
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == receiver
    )
    (port,) = (
        each["spec"]["ports"][0]
        for each in all_documents("gpu")
        if each["kind"] == "Service" and each["metadata"]["name"] == receiver
    )
    pod = next(
        pod
        for _, pod in pods(all_documents("gpu"))
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] == sender
    )
    assert any(_allows(rule, pod, {"port": port["port"]}) for rule in spec["ingress"])


def test_the_autoscaler_reads_what_the_gateway_counts() -> None:
    adapter = yaml.safe_load((KUBERNETES / "prometheus-adapter-values.yaml").read_text("utf-8"))
    (rule,) = adapter["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    assert re.fullmatch(rule["name"]["matches"], series)
    exposition = generate_latest(Metrics().registry).decode()
    assert f"# TYPE {series} counter" in exposition
    scaler = named(all_documents("gpu"), "HorizontalPodAutoscaler", "gateway")["spec"]
    asked = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"]
    assert asked == [rule["name"]["as"]]
    target = scaler["scaleTargetRef"]
    deployment = named(all_documents("gpu"), target["kind"], target["name"])
    # Else an update would set the count back.
    assert "replicas" not in deployment["spec"]
    labels = re.search(r"(\w+)=~", rule["metricsQuery"])
    assert labels
    assert labels[1] in Metrics().requests._labelnames


def test_an_update_has_a_next_one_answering_before_it_ends_this_one() -> None:
    names = ("gateway", "model-server", "mlflow")
    for name in names:
        spec = named(all_documents("gpu"), "Deployment", name)["spec"]
        assert spec["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }
        (container,) = spec["template"]["spec"]["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert wait >= 10
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > wait


def test_the_gateway_has_the_time_that_it_takes_to_end() -> None:
    source = (REPOSITORY / "serving" / "gateway" / "__main__.py").read_text("utf-8")
    graceful = re.search(r"timeout_graceful_shutdown=(\d+)", source)
    assert graceful
    spec = named(all_documents("gpu"), "Deployment", "gateway")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Two logs, side by side in turn.
    needed = wait + int(graceful[1]) + 2 * FLUSH_SECONDS
    assert spec["terminationGracePeriodSeconds"] >= needed
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_model_server_is_the_one_of_the_compose_stack() -> None:
    (container,) = named(all_documents("gpu"), "Deployment", "model-server")["spec"]["template"]["spec"][
        "containers"
    ]
    server = COMPOSE["model-server-1"]
    assert container["image"] == server["image"]
    assert container["command"] == server["entrypoint"]
    # Between pods it is plain text; see the decision.
    tls = [flag for flag in server["command"] if flag.startswith("--ssl_config_file=")]
    assert [*container["args"], *tls] == sorted(server["command"], key=tls.__contains__)


@pytest.mark.parametrize("name", ["redis", "statsd-exporter"])
def test_the_images_of_others_are_those_of_the_compose_stack(name: str) -> None:
    (pod,) = (
        pod
        for _, pod in pods(all_documents("gpu"))
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] == name
    )
    assert pod["spec"]["containers"][0]["image"] == COMPOSE[name]["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_brings_its_own_training_pod_and_leaves_the_others(overlay: str) -> None:
    data = named(all_documents(overlay), "ConfigMap", "airloop-pod-templates")["data"]
    assert set(data) == {f"{group}.yaml" for group in (*get_args(Group), "default")}
    expected = TEMPLATES["training" if overlay == "cpu" else f"training, {overlay}"]
    assert data["training.yaml"] == expected.read_text("utf-8")


def test_airflow_is_told_where_the_templates_are_and_no_image_of_its_own() -> None:
    scheduler = named(all_documents("chart"), "Deployment", "airflow-scheduler")
    spec = scheduler["spec"]["template"]["spec"]
    volume = next(each for each in spec["volumes"] if each["name"] == "pod-templates")
    assert volume["configMap"]["name"] == "airloop-pod-templates"
    data = named(all_documents("chart"), "ConfigMap", "airflow-config")["data"]
    policy = (AIRFLOW / "airflow_local_settings.py").read_text("utf-8")
    assert data["airflow_local_settings.py"].strip() == policy.strip()
    assert f"pod_template_file = {TEMPLATE_FOLDER}/default.yaml" in data["airflow.cfg"]
    assert "execution_api_server_url = http://airflow-api-server:8080/execution/" in data["airflow.cfg"]
    assert "/entrypoint" not in chart_text().partition("pod_template_file.yaml")[0]
    for name, pod in pods(all_documents("chart")):
        for container in containers(pod):
            assert "/entrypoint" not in str(container), name
            assert "/clean-logs" not in str(container), name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """Pods as the executor's own code makes them of the templates, with our values and the policy.

    Only Kubernetes is not there. `none` is of a task that names no template.
    """
    home = tmp_path_factory.mktemp("airflow")
    values = yaml.safe_load((AIRFLOW / "values.yaml").read_text("utf-8"))
    default = str(TEMPLATES["default"])
    configured = {
        **values["config"]["kubernetes_executor"],
        "pod_template_file": default,
        "namespace": "airloop",
    }
    environment = {
        **os.environ,
        **{f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": str(value) for name, value in configured.items()},
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(AIRFLOW), *sys.path]),
        "WORKER_IMAGES": "registry.example.com/airloop-{group}:1.2.3",
    }
    command = [sys.executable, "-c", MAKE_PODS, *map(str, TEMPLATES.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pods = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip([*TEMPLATES, "none"], pods, strict=True))


@pytest.mark.parametrize("name", [*TEMPLATES, "none"])
def test_airflows_executor_makes_a_valid_pod_of_each_template(name: str, made: dict[str, Document]) -> None:
    pod, source = made[name], TEMPLATES[name if name in TEMPLATES else "default"]
    conformed = conform(json.dumps(pod), VERSIONS[0])
    assert conformed.returncode == 0, conformed.stdout
    template = yaml.safe_load(source.read_text("utf-8"))
    image = template["spec"]["containers"][0]["image"].partition(":")[0]
    assert {each["image"] for each in containers(pod)} == {f"registry.example.com/{image}:1.2.3"}
    (base,) = pod["spec"]["containers"]
    assert base["args"][0] == "python"
    assert base["securityContext"]["readOnlyRootFilesystem"] is True
    assert base["resources"] == template["spec"]["containers"][0]["resources"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "task"
    assert pod["metadata"]["annotations"]["task_id"] == "train"


GUIDE = (REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md").read_text("utf-8")


def guides(name: str) -> str:
    """The file of that name that the guide has people write."""
    (text,) = re.findall(rf"```yaml\n# {re.escape(name)}\n(.+?)```", GUIDE, re.DOTALL)
    return text


def test_the_guides_overlay_becomes_what_it_says(tmp_path: Path) -> None:
    text, given = guides("kustomization.yaml"), "../airloop/deploy/kubernetes/overlays/cpu"
    assert given in text
    (tmp_path / "kustomization.yaml").write_text(
        text.replace(given, os.path.relpath(KUBERNETES / "overlays" / "cpu", tmp_path.resolve()))
    )
    built = run(str(TOOLS / "bin" / "kubectl"), "kustomize", str(tmp_path))
    assert conform(built, VERSIONS[0]).returncode == 0
    found = documents(built)
    assert "example.com" not in str(named(found, "ConfigMap", "airloop-settings"))
    # Whom it is for names it without a digest.
    assert named(found, "PersistentVolumeClaim", "airloop-state")["spec"]["storageClassName"] == "efs"
    assert (
        "eks.amazonaws.com/role-arn"
        in named(found, "ServiceAccount", "airloop-jobs")["metadata"]["annotations"]
    )
    images = {each["image"] for _, pod in pods(found) for each in containers(pod)}
    assert {
        "registry.example.com/airloop-serving:0.1.0",
        "registry.example.com/airloop-tracking:0.1.0",
    } < images
    mlflow = [each for each in found if each["metadata"]["name"].startswith("mlflow-settings-")]
    assert len(mlflow) == 1
    assert "my-database" in str(mlflow)


def test_the_guides_values_change_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / "airflow.yaml"
    own.write_text(guides("airflow.yaml"))
    found = pods(documents(chart_text(str(own))))
    for (_, before), (name, after) in zip(pods(all_documents("chart")), found, strict=True):
        for old, new in zip(containers(before), containers(after), strict=True):
            assert new["image"] == "registry.example.com/airloop-kubernetes:0.1.0", name
            changed = {item["name"] for item in new.get("env", []) if item not in old.get("env", [])}
            assert changed <= {"WORKER_IMAGES"}, name
            assert len(new.get("env", [])) == len(old.get("env", [])), name


def test_helm_finds_nothing_wrong_and_refuses_a_value_that_is_none() -> None:
    assert chart_text()
    with pytest.raises(AssertionError, match="schema"):
        run(
            *(str(TOOLS / "bin" / "helm"), "template", "airflow", str(next(TOOLS.glob("airflow-*.tgz")))),
            *("--values", str(AIRFLOW / "values.yaml"), "--set", "scheduler.replica=2"),
        )
