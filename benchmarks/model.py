"""Benchmark: flight_delay's model on fixed windows of 2013, beside a base rate and two usual models.

    make bench-model        (or: python -m benchmarks.model [--rebuild])

Trains on January to August, validates on September, tests on October and November, through the jobs that
Airflow runs. Windows are cut at 12:00 UTC, and begin on 2 January, when the first day's schedule is known.
Exits with 1 when the model's test ROC AUC is below `LEAST_ROC_AUC`.

Belongs here: the comparison. Does not belong here: anything that training needs. The data are built once per
version of the code that builds them, in a state folder of their own under `.airloop/bench/`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from airloop import baseline
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.references import Candidate, Evaluated, TrainingSet
from airloop.settings import Settings, environment_of, load_settings
from airloop.training.examples import Columns, Examples, read_examples
from airloop.training.measures import measure
from airloop.training.statistics import elapsed_hours
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.verdict import Measures

USE_CASE: Final = "flight_delay"
START, END, AS_OF = "2013-01-01", "2013-12-03", "2013-12-02"
LAST_DAY: Final = "2013-12-01"
WINDOWS: Final = ("--train-days", "242", "--validation-days", "30", "--test-days", "61")
LEAST_ROC_AUC: Final = 0.70
DATA_CODE: Final = ("spark_jobs", "feature_repo", "src/airloop/sources", "src/airloop/lakehouse")


class JobFailedError(RuntimeError):
    """A job of the benchmark ended with another status than 0."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare flight_delay's model with others on fixed windows.")
    parser.add_argument("--rebuild", action="store_true", help="build the data again")
    arguments = parser.parse_args(argv)
    try:
        return compare(load_settings(), use_case(USE_CASE), rebuild=arguments.rebuild)
    except AirloopError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    except JobFailedError as error:
        print(error, file=sys.stderr)
        return 1


def compare(deployment: Settings, spec: UseCase, *, rebuild: bool) -> int:
    """Build the data if need be, train and measure all models, print the table; returns the exit status."""
    settings = bench_settings(deployment, spec)
    if rebuild:
        shutil.rmtree(settings.state_dir, ignore_errors=True)
    training_set = build_training_set(deployment, settings)
    candidate = Candidate.model_validate(
        run(settings, "airloop.training.train", "--training-set", training_set.model_dump_json())
    )
    evaluated = Evaluated.model_validate(
        run(
            settings,
            "airloop.training.evaluate",
            *("--training-set", training_set.model_dump_json()),
            *("--candidate", candidate.model_dump_json()),
        )
    )
    report = settings.reports_dir / spec.name / training_set.tag / "verdict.json"
    ours = Measures.model_validate(json.loads(report.read_text(encoding="utf-8"))["candidate"])
    train, validation, test = (
        read_examples(settings, spec, training_set, split) for split in ("train", "validation", "test")
    )
    rows = {
        f"base rate by {' and '.join(spec.gates.baseline)}": base_rate(spec, train, test),
        "logistic regression": logistic_regression(spec, train, test),
        "LightGBM": light_gbm(spec, train, validation, test),
        f"{spec.training.model_builder} (verdict: {'accepted' if evaluated.accepted else 'rejected'})": ours,
    }
    print_table(rows, training_set)
    reached = ours.roc_auc is not None and ours.roc_auc >= LEAST_ROC_AUC
    print(f"{'reached' if reached else 'MISSED'}: test ROC AUC of at least {LEAST_ROC_AUC:.2f}")
    return 0 if reached else 1


def bench_settings(deployment: Settings, spec: UseCase) -> Settings:
    """A deployment of the benchmark's own, in a folder named after the code and spec that make its data."""
    digest = hashlib.sha256(spec.model_dump_json(exclude={"training", "gates", "rollout"}).encode())
    for folder in DATA_CODE:
        for path in sorted((deployment.repository / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    state = deployment.state_dir / "bench" / f"model-{digest.hexdigest()[:12]}"
    return deployment.model_copy(
        update={"state_dir": state, "mlflow_uri": f"sqlite:///{state / 'mlflow.db'}"}
    )


def build_training_set(deployment: Settings, settings: Settings) -> TrainingSet:
    """The training set over the fixed windows; a step that an earlier benchmark finished is not repeated."""
    for other in settings.state_dir.parent.glob("model-*"):
        if other != settings.state_dir:
            shutil.rmtree(other)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    if not settings.jars_dir.exists():
        settings.jars_dir.symlink_to(deployment.jars_dir, target_is_directory=True)
    interval = ("--start", START, "--end", END)
    built(settings, "spark_jobs.ingest", *interval)
    branch = built(settings, "spark_jobs.clean", *interval)["branch"]
    built(settings, "spark_jobs.audit", *interval, "--branch", branch)
    built(settings, "airloop.lakehouse.publish", "--branch", branch)
    built(settings, "spark_jobs.features", *interval)
    # Training reads history, not the online store; the last day is enough to apply the definitions.
    built(settings, "feature_repo.materialise", "--start", LAST_DAY, "--end", AS_OF)
    return TrainingSet.model_validate(built(settings, "spark_jobs.training_set", "--as-of", AS_OF, *WINDOWS))


def built(settings: Settings, module: str, *flags: str) -> dict[str, Any]:
    """The result of a job that builds data: of an earlier run, or of one now."""
    result = result_file(settings, module)
    if result.is_file():
        there: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if "error" not in there:
            return there
    return run(settings, module, *flags)


def result_file(settings: Settings, module: str) -> Path:
    """Where `module`'s result goes; it appears whole, once the job is done."""
    return settings.state_dir / "results" / f"{module}.json"


def run(settings: Settings, module: str, *flags: str) -> dict[str, Any]:
    """Run a job as Airflow would, say how long it took, and return its result; raises `JobFailedError`."""
    result = result_file(settings, module)
    command = [sys.executable, "-m", module, "--use-case", USE_CASE, *flags, "--result", str(result)]
    path = os.pathsep.join([str(settings.repository / "src"), str(settings.repository)])
    environment = {**os.environ, **environment_of(settings), "PYTHONPATH": path}
    began = time.monotonic()
    done = subprocess.run(
        command, env=environment, cwd=settings.repository, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise JobFailedError(f"{module} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    print(f"{module:<28}{time.monotonic() - began:7.1f} s", flush=True)
    outcome: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return outcome


def base_rate(spec: UseCase, train: Examples, test: Examples) -> Measures:
    """The verdict's own baseline."""
    rates = baseline.fit(spec.gates.baseline, train.columns, train.labels)
    return measure(test.labels, rates.predict(test.columns))


def logistic_regression(spec: UseCase, train: Examples, test: Examples) -> Measures:
    """On everything: categories, hours and weekdays one-hot; numbers standardised, missing ones marked."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories, numbers = frames(spec, train.columns)
    low, high = np.nanquantile(numbers, [0.001, 0.999], axis=0)
    width = categories.shape[1]

    def together(columns: Columns) -> Any:
        words, values = frames(spec, columns)
        return np.concatenate([words.astype(object), np.clip(values, low, high).astype(object)], axis=1)

    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", min_frequency=20), list(range(width))),
            (
                make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
                list(range(width, width + numbers.shape[1])),
            ),
        ),
        LogisticRegression(max_iter=300),
    ).fit(together(train.columns), train.labels)
    return measure(test.labels, model.predict_proba(together(test.columns))[:, 1])


def light_gbm(spec: UseCase, train: Examples, validation: Examples, test: Examples) -> Measures:
    """On everything, near its defaults, with the number of trees chosen on the validation window."""
    import lightgbm

    words, _ = frames(spec, train.columns)
    codes: list[dict[str, int]] = [
        {str(word): code for code, word in enumerate(np.unique(column))} for column in words.T
    ]

    def together(columns: Columns) -> np.ndarray:
        words, values = frames(spec, columns)
        coded = [
            [known.get(str(word), -1) for word in column]
            for known, column in zip(codes, words.T, strict=True)
        ]
        return np.concatenate([np.array(coded, np.float64).T, values], axis=1)

    model = lightgbm.LGBMClassifier(
        n_estimators=2000, learning_rate=0.05, num_leaves=63, n_jobs=2, random_state=2013, verbose=-1
    )
    model.fit(
        together(train.columns),
        train.labels,
        eval_X=together(validation.columns),
        eval_y=validation.labels,
        categorical_feature=list(range(words.shape[1])),
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    probabilities = np.asarray(model.predict_proba(together(test.columns)))[:, 1]
    return measure(test.labels, probabilities)


def frames(spec: UseCase, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Categories as text [rows, ...] and numbers as float64 [rows, ...], the same facts as our model's."""
    words = [columns[item.name].astype(str) for item in spec.inputs if item.type == "string"]
    numbers = [columns[item.name].astype(np.float64) for item in spec.inputs if item.type == "double"]
    for item in spec.inputs:
        if item.type == "local_time":
            seconds = columns[item.name]
            words += [(seconds // 3600 % 24).astype(str), ((seconds // 86400 + 3) % 7).astype(str)]
            numbers.append(seconds % 86400 / 60.0)
    numbers += [elapsed_hours(columns[span.since], columns[span.until]) for span in spec.elapsed]
    return np.stack(words, axis=1), np.stack(numbers, axis=1)


def print_table(rows: dict[str, Measures], training_set: TrainingSet) -> None:
    """Print one line per model."""
    print(
        f"\n{training_set.table} {training_set.tag}: {training_set.train_rows} train, "
        f"{training_set.validation_rows} validation, {training_set.test_rows} test rows"
    )
    wide = max(map(len, rows))
    print(f"{'model':<{wide}}  {'ROC AUC':>8}  {'log loss':>8}  {'avg prec':>8}  {'cal err':>8}")
    for name, found in rows.items():
        figures = (found.roc_auc, found.log_loss, found.average_precision, found.calibration_error)
        shown = "  ".join("       -" if value is None else f"{value:8.4f}" for value in figures)
        print(f"{name:<{wide}}  {shown}")


if __name__ == "__main__":
    sys.exit(main())
