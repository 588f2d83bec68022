"""What a deployment has come to, in terms that must be equal in two worlds in which the same happened.

Belongs here: reading tables, the online store, the registry, serving, the audit log and Airflow's own
records; what is left out, and why; and how two states differ. Does not belong here: making them happen.

Left out is what names a run, a file or a moment of writing: two undisturbed worlds differ in it too.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from pyiceberg.table import Table

from airloop import audit_log, registry
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings
from airloop.stack.programs import airflow_home
from airloop.use_cases.catalogue import all_use_cases

State = dict[str, Any]

DIGITS: Final = 9
"""Significant digits of a float that count: Spark adds up in whatever order its tasks end."""
ANSWER_DIGITS: Final = 5
"""The same of a model's answers: the last ones depend on which rows a model server puts into a batch."""
ANSWERS: Final = frozenset(f"scoring.{spec.name}" for spec in all_use_cases())
"""Tables of such answers."""
LEFT_OUT: Final[Mapping[str, Mapping[str, str]]] = {
    "monitoring.usage": dict.fromkeys(
        (
            *("attempt", "run_id", "started", "measured", "cpu_seconds", "peak_vcpus", "peak_memory_gib"),
            *("memory_gib_seconds", "accelerator_seconds", "peak_accelerator_memory_gib", "price"),
        ),
        "what a process took and when, never the same twice",
    )
    | {"try_number": "a killed task has one more", "ended": "a killed attempt has not"},
    **{
        f"monitoring.{spec.name}_{kind}": {"run_id": "MLflow draws it"}
        for spec in all_use_cases()
        for kind in ("counts", "windows")
    },
    **{
        f"monitoring.{spec.name}_retraining": dict.fromkeys(
            ("refusal", "said"), "what killed attempts cost counts in the budget, which may refuse then"
        )
        for spec in all_use_cases()
    },
    "serving.predictions": {
        "writer": "the gateway process",
        "trace_id": "drawn for each request",
        "predicted_at": "when it was asked",
        "latency_seconds": "a measurement",
        "model_seconds": "a measurement",
    },
}
"""Columns of tables that are left out, and why. No other says when, or by which run, a row was written."""
ENDED_ATTEMPTS: Final = "monitoring.usage"
"""Table in which a row that did not end is a killed attempt's own record, and one that did end may be there
twice: the attempt's job was over when its task was killed. What is compared is which jobs it knows."""
BY_THE_CLOCK: Final = "scheduled__"
"""How the ids of runs begin that Airflow's clock starts, which the scenario does not wait for."""
MANY_ROWS: Final = 3000
"""Of larger tables only digests are kept: a difference is then counted, not shown."""
UNLIKE: Final[Mapping[str, str]] = {
    "airloop.snapshot_id": "Iceberg draws it",
    "snapshot_id": "Iceberg draws it",
    "verdict_uri": "names the MLflow run",
    registry.SIGNATURE_DIGEST: "covers a file that names the MLflow run",
    registry.PROMOTED_BY: "names the Airflow run, which an Asset gave a moment for a name",
}
"""Tags of a model version that are left out, and why."""
MEASURED: Final = re.compile(r"(seconds|price|cost|latency|_ms|memory|milliseconds|mebibytes)")
"""Metrics that measure the machine, or files that name the MLflow run."""
_DRAWN: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32,64}"
    r"|\d{4}-\d\d-\d\dT\d\d[:_]\d\d[:_]\d\d(\.\d+)?([+_]\d\d[:_]\d\d|Z)?(_+\w{8})?|\d{8}T\d{6}\.\d+Z"
    r"|\d{18,19}|-[0-9a-f]{12}(?![0-9a-f])"
)
"""Ids and moments within names and texts."""
FOLDERS: Final = ("models", "feast", "reports", "monitoring", "overview", "audit_log", "signing", "training")
"""Of the state folder, where each file is compared by name. The others are Airflow's, logs and caches; the
warehouse is compared as tables, and scratch by what is left in it."""
_RESULTS: Final = "results"
"""Folder of scratch with a document of each task, the last try's."""
_TEMPORARY: Final = re.compile(r"-[0-9a-f-]{36}$|[-_]?[a-z0-9_]{8}$")
"""What Spark and `tempfile` put at a name's end."""


def state_of(settings: Settings, requests: Sequence[str] = ()) -> State:
    """The deployment's state; `requests` are bodies that the gateway is asked, without waiting for a log."""
    return {
        "tables": dict(_tables(settings)),
        "online": _online(settings),
        "registry": _registry(settings),
        "serving": _serving(settings),
        "answers": [_answer(settings, body) for body in requests],
        "audit log": _audit_log(settings),
        "airflow": _airflow(airflow_home(settings) / "airflow.db"),
        "files": _files(settings),
        "leftovers": _leftovers(settings),
    }


def differences(first: State, second: State) -> list[str]:
    """What is not the same in `second`, a line each; nothing where the states are equal."""
    one, other = dict(_flat(first)), dict(_flat(second))
    found: list[str] = []
    for path in sorted({*one, *other}):
        there, here = one.get(path), other.get(path)
        if there == here:
            continue
        if isinstance(there, Counter) or isinstance(here, Counter):
            found += _unlike_rows(path, there or Counter(), here or Counter())
        else:
            found.append(f"{path}: {_short(there)} became {_short(here)}")
    return found


def content(table: Table) -> Counter[str]:
    """How often the table's main branch has each row, without what is left out."""
    name = ".".join(table.name()[-2:])
    left_out = LEFT_OUT.get(name, {})
    columns = tuple(field.name for field in table.schema().fields if field.name not in left_out)
    if table.current_snapshot() is None:
        return Counter()
    rows = table.scan(selected_fields=columns).to_arrow()
    found = rows.to_pylist()
    if name == ENDED_ATTEMPTS:
        said = table.scan(selected_fields=("ended", "run_id")).to_arrow().to_pylist()
        known = {
            _text(row)
            for row, attempt in zip(found, said, strict=True)
            if attempt["ended"] and not attempt["run_id"].startswith(BY_THE_CLOCK)
        }
        return Counter(known)
    digits = ANSWER_DIGITS if name in ANSWERS else DIGITS
    texts = (_text(row, digits) for row in found)
    if rows.num_rows > MANY_ROWS:
        texts = (hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts)
    return Counter(texts)


def _tables(settings: Settings) -> Iterator[tuple[str, State]]:
    catalog = open_catalog(settings)
    for namespace in sorted(catalog.list_namespaces()):
        for identifier in sorted(catalog.list_tables(namespace)):
            table = catalog.load_table(identifier)
            references = table.metadata.refs
            yield (
                ".".join(identifier),
                {
                    "rows": content(table),
                    "columns": [f"{field.name} {field.field_type}" for field in table.schema().fields],
                    "branches": sorted(
                        _alike(name) for name, ref in references.items() if ref.snapshot_ref_type == "branch"
                    ),
                    "tags": sorted(
                        _alike(name) for name, ref in references.items() if ref.snapshot_ref_type == "tag"
                    ),
                },
            )


def _online(settings: Settings) -> State:
    """By view, how often it has each key, feature, value and event time."""
    found: State = {}
    file = settings.feast_dir / "online.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in sorted(names):
            rows = connection.execute(f'SELECT entity_key, feature_name, value, event_ts FROM "{name}"')
            found[name] = Counter(
                f"{key.hex()} {feature} {value.hex() if value is not None else None} {moment}"
                for key, feature, value, moment in rows
            )
    return found


def _registry(settings: Settings) -> State:
    client = registry.open_registry(settings)
    found: State = {}
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name='{model.name}'")
        found[model.name] = {
            "aliases": {name: int(version) for name, version in model.aliases.items()},
            "versions": {
                int(version.version): {
                    "tags": {
                        name: _alike(value) for name, value in version.tags.items() if name not in UNLIKE
                    },
                    "metrics": _metrics(client.get_run(str(version.run_id)).data.metrics),
                    "params": {
                        name: _alike(value)
                        for name, value in client.get_run(str(version.run_id)).data.params.items()
                    },
                }
                for version in versions
            },
        }
    for spec in all_use_cases():
        experiment = client.get_experiment_by_name(spec.name)
        runs = client.search_runs([experiment.experiment_id]) if experiment is not None else []
        # A run that was killed is marked as failed by the next try: it is the killed attempt's own record.
        found[f"runs of {spec.name}"] = Counter(
            f"{_alike(run.info.run_name)} {run.info.status}" for run in runs if run.info.status != "FAILED"
        )
    return found


def _metrics(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.{DIGITS}g}" for name, value in metrics.items() if not MEASURED.search(name)}


def _serving(settings: Settings) -> State:
    return {
        path.name: path.read_text("utf-8").replace(str(settings.state_dir), "")
        for path in sorted(settings.models_dir.glob("*.config"))
    } | {
        path.name: _without_moments(json.loads(path.read_text("utf-8")))
        for path in sorted(settings.models_dir.glob("*.routing.json"))
    }


def _without_moments(value: Any) -> Any:
    """A document in which moments, and names made of them, are all the same."""
    if isinstance(value, dict):
        return {_alike(key): _without_moments(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_moments(item) for item in value]
    return _alike(value) if isinstance(value, str) else value


def _answer(settings: Settings, body: str) -> Any:
    spec = all_use_cases()[0]
    answer = httpx.post(
        f"{settings.gateway_url}/v1/{spec.name}/predict",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    if answer.status_code != 200:
        return f"status {answer.status_code}: {answer.text[:200]}"
    found = answer.json()
    return [found["model"], json.loads(_text(found["prediction"]))]


def _audit_log(settings: Settings) -> Any:
    log = audit_log.audit_log_file(settings)
    # One that was put aside counts too; each has a chain of its own, which reading it verifies.
    return {
        path.name: [
            f"{record['kind']} by {_alike(record['who'])}"
            for record in audit_log.entries_of(path.read_bytes())
        ]
        for path in sorted(log.parent.glob("*.jsonl"))
    }


def _airflow(database: Path) -> State:
    """Runs of the scenario by DAG and end, and events by Asset: neither may be there twice."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        runs = connection.execute(
            # What the clock starts meanwhile, and whether it is over, depends on the time of day.
            "SELECT dag_id, state, count(*) FROM dag_run WHERE run_type <> 'scheduled' GROUP BY dag_id, state"
        )
        events = connection.execute(
            # By task: one that is done again, to be killed after all, makes its event again.
            "SELECT uri, count(DISTINCT source_dag_id || ' ' || source_run_id || ' ' || source_task_id) "
            "FROM asset_event JOIN asset ON asset.id = asset_event.asset_id GROUP BY uri"
        )
        return {
            "runs": {f"{dag_id} {state}": count for dag_id, state, count in runs},
            "events": dict(events.fetchall()),
        }


def _files(settings: Settings) -> State:
    """How many files of each name there are, ids in names apart."""
    return {
        folder: Counter(
            _alike(str(path.relative_to(settings.state_dir)))
            for path in (settings.state_dir / folder).rglob("*")
            if path.is_file()
        )
        for folder in FOLDERS
    }


def _leftovers(settings: Settings) -> Counter[str]:
    """What nothing takes away any more: folders of work in scratch, and files that were being written."""
    folder = settings.scratch_dir
    found = [path.name for path in folder.iterdir() if path.name != _RESULTS] if folder.exists() else []
    written = (
        path for name in (*FOLDERS, folder.name, "usage") for path in (settings.state_dir / name).rglob(".*")
    )
    return Counter(
        [f"scratch/{_TEMPORARY.sub('-#', name)}" for name in found]
        # As `whole_files` names a file until it is whole: its name, and the process.
        + [_alike(path.name.rpartition(".")[0]) for path in written if re.search(r"\.\d+$", path.name)]
    )


def _alike(text: str) -> str:
    return _DRAWN.sub("#", text)


def _text(value: Any, digits: int = DIGITS) -> str:
    return json.dumps(_plain(value, digits), sort_keys=True)


def _plain(value: Any, digits: int = DIGITS) -> Any:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by their path; a `Counter` is one."""
    if isinstance(value, dict) and not isinstance(value, Counter):
        for key, item in value.items():
            yield from _flat(item, f"{path} / {key}" if path else str(key))
    else:
        yield path, value


def _unlike_rows(path: str, one: Counter[str], other: Counter[str], shown: int = 3) -> Iterator[str]:
    gone, new = one - other, other - one
    if not gone and not new:
        # Only one of the two states has it at all.
        yield f"{path}: only one of the two has it"
        return
    yield f"{path}: {one.total()} became {other.total()}, {gone.total()} gone, {new.total()} new"
    for sign, rows in (("-", gone), ("+", new)):
        for text in sorted(rows)[:shown]:
            yield f"    {sign} {rows[text]} x {_short(text)}"


def _short(value: Any, longest: int = 600) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]}..."
