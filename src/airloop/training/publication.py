"""Where a verdict and a model card are kept: on the candidate's MLflow run, and in the reports folder.

Belongs here: writing them, and reading a verdict again. Does not belong here: judging (`airloop.verdict`), or
how pages look.
"""

from __future__ import annotations

import logging
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from airloop.errors import RegistryError
from airloop.references import Evaluated
from airloop.registry import download_artifacts
from airloop.settings import Settings
from airloop.training.model_card import CARD, FACTS, CardFacts, card_of
from airloop.training.tracking import VERDICT, VERDICT_FILE, VERDICT_PAGE, TrainingRuns
from airloop.training.verdict_page import page_of
from airloop.use_cases.spec import UseCase
from airloop.verdict import Verdict
from airloop.whole_files import write_whole
from airloop.work_folders import work_folder

log = logging.getLogger(__name__)

OVERRIDDEN_BY: Final = "airloop.overridden_by"
"""Tag of a run: who accepted it in spite of its rules; empty for a verdict that the rules made."""
OVERRIDE_REASON: Final = "airloop.override_reason"

D = TypeVar("D", bound=BaseModel)


def publish(
    settings: Settings, spec: UseCase, runs: TrainingRuns, verdict: Verdict, facts: CardFacts | None
) -> Evaluated:
    """Write verdict and card to MLflow and to the reports, and log the figures; safe to repeat.

    The document on which registration depends is written last, so a job killed before has accepted nothing.
    Without `facts` there is no card.
    """
    run_id, outcome = verdict.run_id, "accepted" if verdict.accepted else "rejected"
    runs.log_metrics(run_id, _metrics(verdict))
    runs.tag(
        run_id,
        {
            VERDICT: outcome,
            "airloop.rejected_for": "; ".join(verdict.reasons),
            OVERRIDDEN_BY: verdict.overridden_by or "",
            OVERRIDE_REASON: verdict.override.reason if verdict.override else "",
        },
    )
    texts = {VERDICT_PAGE: page_of(verdict, CARD if facts else "")}
    if facts:
        texts[CARD] = card_of(spec, verdict, facts)
        runs.log_text(run_id, FACTS, facts.model_dump_json(indent=2))
    texts[VERDICT_FILE] = verdict.model_dump_json(indent=2)
    folder = settings.reports_dir / verdict.use_case / verdict.training_set.tag
    uris = {}
    for name, text in texts.items():
        write_whole(folder / name, text)
        uris[name] = runs.log_text(run_id, name, text)
    log.info("%s: %s", outcome, "; ".join(verdict.reasons) or "every rule passed")
    return Evaluated(
        run_id=run_id,
        accepted=verdict.accepted,
        verdict_uri=uris[VERDICT_FILE],
        page_uri=(folder / VERDICT_PAGE).as_uri(),
        figures=_headline(verdict),
        failed=verdict.reasons,
    )


def read_verdict(settings: Settings, run_id: str) -> Verdict:
    """The verdict on run `run_id`; raises `RegistryError` when there is none, or the document is not one."""
    return _read(settings, run_id, VERDICT_FILE, Verdict, "a verdict")


def read_facts(settings: Settings, run_id: str) -> CardFacts:
    """What the run's card was made from; raises `RegistryError` as `read_verdict` does."""
    return _read(settings, run_id, FACTS, CardFacts, "what a model card is made from")


def _read(settings: Settings, run_id: str, name: str, kind: type[D], what: str) -> D:
    with work_folder(settings, "read") as scratch:
        text = download_artifacts(settings, run_id, name, scratch).read_text(encoding="utf-8")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise RegistryError(
            expected=f"{name} of run {run_id} to be {what}",
            found=f"{error.error_count()} faults in it",
            next_step="evaluate the candidate again",
        ) from None


def _headline(verdict: Verdict) -> dict[str, float | None]:
    target, candidate = verdict.target, verdict.candidate.figures()
    ranks = target.figures[0].name
    baseline = verdict.baseline.figures() if verdict.baseline else {}
    return {
        **{f"test_{name}": candidate[name] for name in dict.fromkeys((ranks, target.loss.name))},
        f"baseline_{ranks}": baseline.get(ranks),
    }


def _metrics(verdict: Verdict) -> dict[str, float]:
    """The figures by `<model>_<figure>`, and what the model costs to serve."""
    measured = {"test": verdict.candidate, "baseline": verdict.baseline}
    if verdict.champion is not None:
        measured["champion"] = verdict.champion.measures
    metrics = {
        f"{who}_{name}": value
        for who, measures in measured.items()
        if measures is not None
        for name, value in {
            **measures.figures(),
            "rows": measures.rows,
            "positives": measures.positives,
        }.items()
        if value is not None
    }
    if verdict.serving_cost is not None:
        costs = verdict.serving_cost.model_dump(exclude={"calls", "batch_rows"})
        metrics |= {f"serving_{name}": value for name, value in costs.items()}
    return metrics
