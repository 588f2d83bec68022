"""A verdict as a Slack message, in Block Kit and within Slack's limits.

Belongs here: what the message says. Does not belong here: sending it (the alerts do that), or the page with
everything (`airloop.training.verdict_page`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from airloop.use_cases.target import Target
from airloop.verdict import Measures, Rule, Verdict

MOST_BLOCKS: Final = 50
"""Slack refuses more, and longer texts than these (docs.slack.dev/reference/block-kit/blocks)."""
LONGEST_TEXT: Final = 3000
LONGEST_HEADER: Final = 150
LONGEST_FIELD: Final = 2000
MOST_RULES: Final = 12
"""Failed rules that are shown one by one: more are read on the page."""
_LONGEST_DETAIL: Final = 600

Block = dict[str, Any]


def message_of(verdict: Verdict, *, report_url: str | None = None, run_url: str | None = None) -> list[Block]:
    """The blocks, the outcome first, then figures, failed rules, and how many passed.

    `report_url` leads to the verdict's page and `run_url` to the run (Airflow's or MLflow's); each is left
    out when there is none. Names and details are data, and cannot become Slack markup.
    """
    blocks = [
        _header(verdict),
        _section(_subject(verdict)),
        {"type": "section", "fields": [_text(line, LONGEST_FIELD) for line in _figures(verdict)]},
        *_failed(verdict.failed),
        _context(_footer(verdict)),
    ]
    links = {"Report": report_url, "Run": run_url}
    if any(links.values()):
        blocks.append(
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "text": {"type": "plain_text", "text": name}, "url": url}
                    for name, url in links.items()
                    if url
                ],
            }
        )
    return blocks


def _header(verdict: Verdict) -> Block:
    outcome = "accepted" if verdict.accepted else "rejected"
    if verdict.override is not None:
        outcome = f"accepted by {verdict.override.by}"
    text = f"{verdict.use_case}: candidate {outcome}"[:LONGEST_HEADER]
    return {"type": "header", "text": {"type": "plain_text", "text": text}}


def _subject(verdict: Verdict) -> str:
    lines = [
        f"Training set `{_escaped(verdict.training_set.tag)}`, MLflow run `{_escaped(verdict.run_id)}`, "
        f"{verdict.candidate.rows:,} test rows"
    ]
    if verdict.override is not None:
        lines.append(f"*In spite of the rules:* {_escaped(verdict.override.reason)}")
    return "\n".join(lines)


def _figures(verdict: Verdict) -> Iterable[str]:
    """One field a model, the candidate first."""
    target = verdict.target
    yield _model(target, "Candidate", verdict.candidate)
    yield _model(target, "Baseline", verdict.baseline)
    if verdict.champion is not None:
        yield _model(target, f"Champion (version {verdict.champion.version})", verdict.champion.measures)
    else:
        yield "*Champion*\nnone yet"


def _model(target: Target, name: str, measures: Measures | None) -> str:
    """What ranks models, the loss, and whether it can be relied on where that is measured."""
    wanted = dict.fromkeys((target.figures[0], target.loss, *target.figures[-1:]))
    figures = measures.figures() if measures else {}
    shown = (
        f"{figure.words} {'not measured' if (value := figures.get(figure.name)) is None else f'{value:.4f}'}"
        for figure in wanted
    )
    return "\n".join((f"*{name}*", *shown))


def _failed(rules: tuple[Rule, ...]) -> Iterable[Block]:
    for rule in rules[:MOST_RULES]:
        detail = _escaped(rule.detail)[:_LONGEST_DETAIL]
        compared = ""
        if rule.comparison is not None and rule.threshold is not None:
            value = "not measured" if rule.value is None else f"{rule.value:.4g}"
            compared = f" ({value}, must be {_escaped(rule.comparison)} {rule.threshold:.4g})"
        yield _section(f":x: *{_escaped(rule.name)}*{compared}\n{detail}")
    if len(rules) > MOST_RULES:
        yield _section(f"and {len(rules) - MOST_RULES} more rules that failed; see the report")


def _footer(verdict: Verdict) -> str:
    passed = len(verdict.rules) - len(verdict.failed)
    tested = ""
    if verdict.resampling is not None and verdict.ranges:
        tested = f" Differences: {verdict.resampling.method}, {verdict.resampling.blocks} days."
    return f"{passed} of {len(verdict.rules)} rules passed.{tested}"


def _section(text: str) -> Block:
    return {"type": "section", "text": _text(text, LONGEST_TEXT)}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_text(text, LONGEST_TEXT)]}


def _text(text: str, longest: int) -> Block:
    return {"type": "mrkdwn", "text": text[:longest]}


def _escaped(text: str) -> str:
    """`text` without a meaning to Slack's markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
