"""Simulation: flight_delay's 2013 lived through under several policies of when to train again.

    make simulate       (or: python -m benchmarks.simulate [--until 2013-06-01] [--only never,weekly])

Every policy begins on 1 April with one champion, trained on January to March, and goes on to the end of
November, day by day (`benchmarks.simulation.replay`; December is nobody's, as in `make bench-model`):

- `never`: that champion for ever;
- `weekly`: a candidate each Monday, as `Schedules.training` has it;
- `verdict`: a candidate when monitoring finds drift or decay, within the spec's own limits (`Retraining`);
- and to see why: `decay`, on decay alone; `monthly`, each fourth Monday; `hasty`, `fortnight` and
  `patient`, as `verdict`, but with a cool-down of two days, two weeks and four.

The spec's windows, verdict and monitoring are used as they are, and in `verdict` its limits. As of
1 April the train window holds only January to 9 February: it grows to its 119 days until June. What is not
the spec's is the size of the network: `SMALLER` takes some ten seconds, the spec's own some minutes; `--full`
trains that.

A candidate as of a day is trained once, for all policies that want one, and priced for each: its wall clock,
at `--price-per-hour`, an assumed price of a machine. It is kept under `.airloop/bench/`, as its verdicts are;
a run that was interrupted goes on from there.

`verdict` holds the quality of `weekly` when it is worse by no more than the spec's gates allow a candidate to
be (ROC AUC and log loss, all days together). Ends with one line of JSON; a picture of the weeks, and each
run with its reasons, go beside the data.

Belongs here: the command line and the policies. Does not belong here: the simulation
(`benchmarks.simulation`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

# Benchmarks run where nothing outside is reached.
os.environ.setdefault("DO_NOT_TRACK", "1")

from airloop.intervals import Interval, parse_instant
from airloop.references import TrainingSet
from airloop.settings import Settings, load_settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.retraining_policy import Retraining
from airloop.use_cases.spec import UseCase
from benchmarks.model import USE_CASE, bench_settings, build_training_set
from benchmarks.simulation import report
from benchmarks.simulation.candidates import Candidates, network_learner
from benchmarks.simulation.gate import KeptGate
from benchmarks.simulation.replay import Policy, Story, replay
from benchmarks.simulation.year import whole_year

START, END = "2013-04-01", "2013-12-01"
SMALLER: Final = {"members": 4, "width": 64, "max_epochs": 3, "weight_average": 0.98}
"""Instead of 16 members of width 128 and 8 epochs; an average over fewer steps must reach back less."""
PRICE_PER_HOUR: Final = 0.4
"""Assumed: about what a machine with eight virtual processors is let for, in dollars."""
LEARNS_BY: Final = (
    "src/airloop/training",
    *(f"src/airloop/monitoring/{name}.py" for name in ("cells", "monitored", "profile", "scores")),
    "src/airloop/verdict.py",
    *(f"benchmarks/simulation/{name}.py" for name in ("candidates", "gate", "year")),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Live through 2013 under several policies of training.")
    parser.add_argument("--until", default=END, help="day that is not lived through any more")
    parser.add_argument(
        "--only", help="policies, with commas between; weekly is what others are compared with"
    )
    parser.add_argument("--full", action="store_true", help="train the spec's own network, some minutes each")
    parser.add_argument("--price-per-hour", type=float, default=PRICE_PER_HOUR)
    arguments = parser.parse_args(argv)
    deployment, spec = load_settings(), use_case(USE_CASE)
    settings = bench_settings(deployment, spec)
    training_set = build_training_set(deployment, settings)
    if not arguments.full:
        spec = smaller(spec)
    wanted = policies(spec)
    if arguments.only:
        wanted = [policy for policy in wanted if policy.name in arguments.only.split(",")]
    span = Interval(parse_instant(START), parse_instant(arguments.until))
    simulate(settings, spec, training_set, span, wanted, arguments.price_per_hour)
    return 0


def smaller(spec: UseCase) -> UseCase:
    """`spec` with a network that is trained in seconds."""
    training = spec.training.model_copy(update={"parameters": {**spec.training.parameters, **SMALLER}})
    return spec.model_copy(update={"training": training})


def policies(spec: UseCase) -> list[Policy]:
    """What is compared."""
    rule = spec.retraining

    def cooling(**time: float) -> Retraining:
        return rule.model_copy(update={"cool_down": timedelta(**time)})

    return [
        Policy("never", "the first champion for ever"),
        Policy("weekly", "each Monday", weeks=1),
        Policy("verdict", "on drift or decay", verdict=rule),
        Policy("decay", "on decay alone", verdict=rule.model_copy(update={"on_drift": False})),
        Policy("monthly", "each fourth Monday", weeks=4),
        Policy("hasty", "on either, with a cool-down of two days", verdict=cooling(days=2)),
        Policy("fortnight", "on either, with a cool-down of two weeks", verdict=cooling(weeks=2)),
        Policy("patient", "on either, with a cool-down of four weeks", verdict=cooling(weeks=4)),
    ]


def simulate(
    settings: Settings,
    spec: UseCase,
    training_set: TrainingSet,
    span: Interval,
    wanted: Sequence[Policy],
    price_per_hour: float,
) -> dict[str, Any]:
    """Live through `span` under each policy; print and return the figures."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", flush=True)

    folder = settings.state_dir / "simulation" / _digest(settings.repository, spec, training_set)
    stories: list[Story] = []
    with tempfile.TemporaryDirectory() as scratch:
        year = whole_year(settings, spec, training_set, Path(scratch))
        say(f"{len(year.rows)} rows; {span.days} days from {span.start:%Y-%m-%d} on; kept in {folder}")
        learner = network_learner(settings, spec, training_set, os.environ)
        candidates = Candidates(year, learner, folder)
        gate, first = KeptGate(folder / "verdicts"), candidates.as_of(span.start)
        failed = "; ".join(gate(year, first, None)) or "no rule"
        say(f"first champion: trained in {first.seconds:.1f} s, fails {failed}")
        for policy in wanted:
            story = replay(year, policy, span, candidates, gate, say)
            stories.append(story)
            say(f"{policy.name}: {json.dumps(report.measured(year, span, story, price_per_hour))}")
        document = {
            "use_case": spec.name,
            "days": span.days,
            "rows": len(stories[0].answers),
            "price_per_hour": price_per_hour,
            "parameters": SMALLER,
            "policies": {
                one.policy.name: report.measured(year, span, one, price_per_hour) for one in stories
            },
            "over_weekly": {},
        }
        if any(one.policy.name == "weekly" for one in stories):
            document["over_weekly"] = report.compared(year, span, stories, "weekly")
            document["staleness"] = report.staleness(year, span, candidates)
        document |= judged(document, spec)
        report.draw(year, span, stories, folder / "simulate.png")
        details = {
            one.policy.name: {"weeks": report.weeks(year, span, one), "runs": report.runs(one)}
            for one in stories
        }
    (folder / "details.json").write_text(json.dumps(details, indent=1), encoding="utf-8")
    report.print_table(document)
    for one in stories:
        for run in report.runs(one):
            print(f"{one.policy.name} {run['date']} {run['why']}: {'; '.join(run['failed']) or 'promoted'}")
    print(f"weeks and runs: {folder / 'details.json'}; picture: {folder / 'simulate.png'}")
    print(json.dumps(document))
    return document


def judged(document: dict[str, Any], spec: UseCase) -> dict[str, Any]:
    """Whether `verdict` holds the quality of `weekly`, and at what share of its trainings."""
    over = document["over_weekly"].get("verdict")
    if over is None:
        return {}
    trainings = {name: document["policies"][name]["trainings"] for name in ("verdict", "weekly")}
    return {
        "verdict_holds_quality": over["roc_auc"]["value"]
        >= -spec.gates.figures["roc_auc"].max_loss_to_champion
        and over["log_loss_lower"]["value"] >= -spec.gates.figures["log_loss"].max_loss_to_champion,
        "verdict_trainings_share": round(trainings["verdict"] / max(trainings["weekly"], 1), 3),
    }


def _digest(repository: Path, spec: UseCase, training_set: TrainingSet) -> str:
    """Of all that a candidate depends on."""
    digest = hashlib.sha256(f"{training_set.tag} {spec.training.model_dump_json()}".encode())
    for folder in LEARNS_BY:
        there = repository / folder
        for path in sorted(there.rglob("*.py")) if there.is_dir() else [there]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
