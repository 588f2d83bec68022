"""Benchmark: a use case's model on fixed windows of 2013, beside what was usual and two usual models.

    make bench-model        (or: python -m benchmarks.model [--use-case NAME] [--minutes 15] [--rebuild])

Trains on January to August, validates on September, tests on October and November, through the jobs that
Airflow runs; nobody looks at December. Windows begin on 2 January, when the first day's schedule is known.
LightGBM is tuned for `--minutes`, on the same rows and facts, by validation loss; so is ours, through the
tuning jobs, one process a trial, where its spec says what to search: otherwise it is trained once with the
spec's parameters. A trial that has begun ends. Both searches begin anew with each benchmark, and look at the
test rows once, with the model that each ends with.

What our search begins with, the spec, is not as innocent of the test months as that: some of flight_delay's
was chosen with their figures beside (docs/adr/0016 to 0019 say what). The ranges do not cover that.

Ends with one line of JSON: the figures of the label's kind, `train_seconds` (of the model that is tested),
`tuning_seconds` and `trials` of each; and `gain_over_lightgbm` with ranges over resampled days, above 0 where
ours is better. Exits with 1 when the figure that ranks candidates, or the loss, is worse than LightGBM's.

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
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from airloop import baseline
from airloop.errors import EXIT_PERMANENT, AirloopError
from airloop.references import Candidate, Study, TrainingSet, TrialDone, Tuned
from airloop.registry import SAVED_MODEL, download_artifacts
from airloop.settings import Settings, environment_of, load_settings
from airloop.training.bootstrap import ranges
from airloop.training.examples import Examples, event_days, read_examples
from airloop.training.measures import measure
from airloop.training.provenance import code_commit
from airloop.training.served_model import ServedModel
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.use_cases.target import Target
from benchmarks.usual_models import Fitted, light_gbm, linear

START, END, AS_OF = "2013-01-01", "2013-12-03", "2013-12-02"
LAST_DAY: Final = "2013-12-01"
WINDOWS: Final = ("--train-days", "242", "--validation-days", "30", "--test-days", "61")
DATA_CODE: Final = ("spark_jobs", "feature_repo", "src/airloop/sources", "src/airloop/lakehouse")


class JobFailedError(RuntimeError):
    """A job of the benchmark ended with another status than 0."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare a use case's model with others on fixed windows.")
    parser.add_argument("--use-case", default="flight_delay", help="name of the use case")
    parser.add_argument("--rebuild", action="store_true", help="build the data again")
    parser.add_argument("--minutes", type=int, default=15, help="to tune our model, and LightGBM, each")
    parser.add_argument("--trials", type=int, default=200, help="of our model at most")
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings()
        # Once: whoever commits meanwhile must not end the study.
        commit = code_commit(settings.repository)
        budget = Budget(arguments.minutes, arguments.trials, commit)
        return compare(settings, use_case(arguments.use_case), rebuild=arguments.rebuild, budget=budget)
    except AirloopError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    except JobFailedError as error:
        print(error, file=sys.stderr)
        return 1


class Budget(NamedTuple):
    """How long each model is tuned, and what of ours."""

    minutes: int
    trials: int
    """Of our model, at most."""
    commit: str


def compare(deployment: Settings, spec: UseCase, *, rebuild: bool, budget: Budget) -> int:
    """Build the data if need be, tune, train and measure all models; returns the exit status."""
    settings = bench_settings(deployment, spec)
    if rebuild:
        shutil.rmtree(settings.state_dir, ignore_errors=True)
    training_set = build_training_set(deployment, settings, spec)
    train, validation, test = (
        read_examples(settings, spec, training_set, split) for split in ("train", "validation", "test")
    )
    models: dict[str, Callable[[], Fitted]] = {
        "base_rate": lambda: base_rate(spec, train, test),
        "linear": lambda: linear(spec, train, test),
        "lightgbm": lambda: light_gbm(
            spec, train, validation, test, minutes=budget.minutes, seed=spec.training.seed
        ),
        "tensorflow": lambda: ours(anew(settings), spec, training_set, test, budget),
    }
    fitted, document = {}, {}
    for name, fit in models.items():
        fitted[name] = fit()
        document[name] = figures(spec.label.target, test.labels, fitted[name])
        print(f"{name}: {json.dumps(document[name])}", flush=True)
    print_table(spec.label.target, document, training_set)
    print(f"tensorflow: {json.dumps(fitted['tensorflow'].parameters)}")
    print(f"lightgbm: {json.dumps(fitted['lightgbm'].parameters)}")
    gains = ranges(
        spec.label.target,
        {name: fitted[name].answers for name in ("tensorflow", "lightgbm")},
        test.labels,
        event_days(spec, test),
        spec.training.seed,
    )
    target = spec.label.target
    weighed = dict.fromkeys((target.figures[0], target.loss))
    difference = {
        figure.name: (1 if figure.higher_is_better else -1)
        * (document["tensorflow"][figure.name] - document["lightgbm"][figure.name])
        for figure in weighed
    }
    shown = {name: round(value, 5) for name, value in difference.items()}
    over = {
        figure.name: [round(gains[key].low, 5), round(gains[key].high, 5)]
        for figure in weighed
        if (key := f"{figure.gain}_lightgbm") in gains
    }
    print(
        json.dumps(
            {
                **document,
                "gain_over_lightgbm": shown,
                "range_of_gain": over,
                "rows": {"train": len(train), "validation": len(validation), "test": len(test)},
                "inputs": len(spec.inputs),
                "minutes": budget.minutes,
            }
        )
    )
    return 0 if min(difference.values()) >= 0 else 1


def ours(
    settings: Settings, spec: UseCase, training_set: TrainingSet, test: Examples, budget: Budget
) -> Fitted:
    """Our model, by the jobs of the training DAG: a study, its trials one after another, the training."""
    pinned = ("--training-set", training_set.model_dump_json(), "--code-commit", budget.commit)
    began = time.monotonic()
    tuned, trials = _tuned(settings, spec, pinned, budget) if spec.training.tuning else (None, 0)
    tuning_seconds = time.monotonic() - began
    began = time.monotonic()
    given = ("--parameters", tuned.model_dump_json()) if tuned else ()
    candidate = Candidate.model_validate(run(settings, spec, "airloop.training.train", *pinned, *given))
    seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(settings, candidate.run_id, SAVED_MODEL, Path(folder))
        answers = ServedModel(path).predict(test.columns)
    parameters = tuned.parameters if tuned else spec.training.parameters
    return Fitted(answers, seconds, trials, tuning_seconds, dict(parameters))


def _tuned(settings: Settings, spec: UseCase, pinned: tuple[str, ...], budget: Budget) -> tuple[Tuned, int]:
    """What a study found, and how many trials it had."""
    limits = ("--trials", str(budget.trials), "--minutes", str(budget.minutes))
    study = Study.model_validate(run(settings, spec, "airloop.training.study", *pinned, *limits))
    trials = 0
    for slot in study.slots:
        flags = (*pinned, "--study", study.name, "--slot", str(slot))
        done = TrialDone.model_validate(run(settings, spec, "airloop.training.trial", *flags))
        print(f"  {done.summary}", flush=True)
        if done.state == "skipped":
            break
        trials += 1
    tuned = run(settings, spec, "airloop.training.tuned", "--study", study.name)
    return Tuned.model_validate(tuned), trials


def figures(target: Target, labels: np.ndarray, fitted: Fitted) -> dict[str, float]:
    """What is compared."""
    found = measure(target, labels, fitted.answers)
    values = {figure.name: getattr(found, figure.name) for figure in target.figures}
    return {
        **{name: round(value, 5) for name, value in values.items() if value is not None},
        "train_seconds": round(fitted.train_seconds, 1),
        "tuning_seconds": round(fitted.tuning_seconds, 1),
        "trials": fitted.trials,
    }


def bench_settings(deployment: Settings, spec: UseCase) -> Settings:
    """A deployment of the benchmark's own, in a folder named after the code and spec that make its data."""
    digest = hashlib.sha256(
        spec.model_dump_json(
            exclude={"schedules", "training", "gates", "rollout", "monitoring", "retraining"}
        ).encode()
    )
    for folder in DATA_CODE:
        for path in sorted((deployment.repository / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    state = deployment.state_dir / "bench" / f"model-{digest.hexdigest()[:12]}"
    return deployment.model_copy(
        update={"state_dir": state, "mlflow_uri": f"sqlite:///{state / 'mlflow.db'}"}
    )


def anew(settings: Settings) -> Settings:
    """With studies and runs of this benchmark's own: it must not go on with what an earlier one found."""
    folder = settings.state_dir / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return settings.model_copy(
        update={
            "mlflow_uri": f"sqlite:///{folder / 'mlflow.db'}",
            "tuning_storage": f"sqlite:///{folder / 'tuning.db'}",
        }
    )


def build_training_set(deployment: Settings, settings: Settings, spec: UseCase) -> TrainingSet:
    """The training set over the fixed windows; a step that an earlier benchmark finished is not repeated."""
    for other in settings.state_dir.parent.glob("model-*"):
        if other != settings.state_dir:
            shutil.rmtree(other)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    if not settings.jars_dir.exists():
        settings.jars_dir.symlink_to(deployment.jars_dir, target_is_directory=True)
    interval = ("--start", START, "--end", END)
    source = use_case(spec.lender) if spec.lender else spec
    built(settings, source, "spark_jobs.ingest", *interval)
    branch = built(settings, source, "spark_jobs.clean", *interval)["branch"]
    built(settings, source, "spark_jobs.audit", *interval, "--branch", branch)
    built(settings, source, "airloop.lakehouse.publish", *interval, "--branch", branch)
    for one in (source, spec) if spec.lender else (spec,):
        built(settings, one, "spark_jobs.features", *interval)
        # Training reads history, not the online store; the last day is enough to apply the definitions.
        built(settings, one, "feature_repo.materialise", "--start", LAST_DAY, "--end", AS_OF)
    made = built(settings, spec, "spark_jobs.training_set", "--as-of", AS_OF, *WINDOWS)
    return TrainingSet.model_validate(made)


def built(settings: Settings, spec: UseCase, module: str, *flags: str) -> dict[str, Any]:
    """The result of a job that builds data: of an earlier run, or of one now."""
    result = result_file(settings, spec, module)
    if result.is_file():
        there: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if "error" not in there:
            return there
    return run(settings, spec, module, *flags)


def result_file(settings: Settings, spec: UseCase, module: str) -> Path:
    """Where `module`'s result goes; it appears whole, once the job is done."""
    return settings.state_dir / "results" / f"{spec.name}.{module}.json"


def run(settings: Settings, spec: UseCase, module: str, *flags: str) -> dict[str, Any]:
    """Run a job as Airflow would, say how long it took, and return its result; raises `JobFailedError`."""
    result = result_file(settings, spec, module)
    command = [sys.executable, "-m", module, "--use-case", spec.name, *flags, "--result", str(result)]
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


def base_rate(spec: UseCase, train: Examples, test: Examples) -> Fitted:
    """The verdict's own baseline."""
    began = time.monotonic()
    rates = baseline.fit(spec.label.target, spec.gates.baseline, train.columns, train.labels)
    return Fitted(rates.predict(test.columns), time.monotonic() - began)


def print_table(
    target: Target, document: Mapping[str, Mapping[str, float]], training_set: TrainingSet
) -> None:
    """Print one line per model."""
    print(
        f"\n{training_set.table} {training_set.tag}: {training_set.train_rows} train, "
        f"{training_set.validation_rows} validation, {training_set.test_rows} test rows"
    )
    measured, spent = [figure.name for figure in target.figures], ["train_seconds", "trials"]
    print(f"{'model':<12}" + "".join(f"{name:>25}" for name in (*measured, *spent)))
    for name, found in document.items():
        shown = [f"{found[c]:25.4f}" for c in measured] + [f"{found[c]:25.0f}" for c in spent]
        print(f"{name:<12}" + "".join(shown))


if __name__ == "__main__":
    sys.exit(main())
