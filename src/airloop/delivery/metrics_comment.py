"""A change's model beside main's, as the Markdown of a comment.

    python -m airloop.delivery.metrics_comment --change verdict.json [--main verdict.json] [--link URL]

Belongs here: what a reviewer should see of two verdict documents. Does not belong here: training the models
that they judge, or posting the comment (`scripts/ci/sticky_comment.sh`).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from airloop.errors import EXIT_PERMANENT, AirloopError, RegistryError
from airloop.use_cases.target import Figure
from airloop.verdict import Measures, Verdict

MARKER: Final = "<!-- airloop: model metrics -->"
"""First line of the comment, by which it is found again and replaced."""
_MOST_SLICES: Final = 10
_LONGEST_DETAIL: Final = 300


def comment_of(change: Verdict, main: Verdict | None, *, link: str | None = None) -> str:
    """Markdown, GitHub's kind: the outcome, the figures side by side, failed rules, slices that moved most.

    Figures are only called better or worse where both models were measured on the same rows.
    """
    comparable = main is not None and _same_rows(change, main)
    lines = [
        MARKER,
        f"### Model of `{_code(change.use_case)}`: {_outcome(change)}",
        "",
        *_figures(change, main, comparable),
        "",
        _on_which_rows(change, main, comparable),
        *_failed(change),
        *(_slices(change, main) if main is not None and comparable else ()),
    ]
    if link is not None:
        lines += ["", f"[The run that trained it]({link})"]
    return "\n".join(lines) + "\n"


def _outcome(verdict: Verdict) -> str:
    if verdict.override is not None:
        return f"accepted by {_text(verdict.override.by)} in spite of its rules"
    passed = len(verdict.rules) - len(verdict.failed)
    return f"{'accepted' if verdict.accepted else '**rejected**'} ({passed} of {len(verdict.rules)} rules)"


def _figures(change: Verdict, main: Verdict | None, comparable: bool) -> Iterable[str]:
    yield "| on the test window | main | this change | | baseline |"
    yield "|---|---:|---:|---|---:|"
    for figure in change.target.figures:
        ours = _figure(change.candidate, figure)
        theirs = _figure(main.candidate, figure) if main is not None else None
        base = _figure(change.baseline, figure)
        moved = _moved(figure, theirs, ours) if comparable else ""
        yield f"| {figure.words} | {_number(theirs)} | {_number(ours)} | {moved} | {_number(base)} |"
    if change.serving_cost is not None:
        before = main.serving_cost if main is not None else None
        for name, title in (
            ("mebibytes", "model, MiB"),
            ("single_row_p99_milliseconds", "99% of single rows within, ms"),
        ):
            ours = getattr(change.serving_cost, name)
            theirs = getattr(before, name) if before is not None else None
            yield f"| {title} | {_number(theirs, 1)} | {_number(ours, 1)} | | |"


def _moved(figure: Figure, theirs: float | None, ours: float | None) -> str:
    if theirs is None or ours is None:
        return ""
    difference = ours - theirs
    if round(difference, 4) == 0:
        return "as before"
    better = (difference > 0) == figure.higher_is_better
    return f"{difference:+.4f} ({'better' if better else 'worse'})"


def _same_rows(one: Verdict, other: Verdict) -> bool:
    """Whether both were measured on the same rows, as far as the documents tell."""
    return (
        (one.use_case, one.training_set.tag, one.training_set.as_of)
        == (other.use_case, other.training_set.tag, other.training_set.as_of)
    ) and (one.candidate.rows, one.candidate.positives) == (other.candidate.rows, other.candidate.positives)


def _on_which_rows(change: Verdict, main: Verdict | None, comparable: bool) -> str:
    rows = f"{change.candidate.rows:,} test rows of `{_code(change.training_set.tag)}`"
    if main is None:
        return f"Measured on {rows}. There is no verdict of main to compare with."
    if comparable:
        return f"Both measured on the same {rows}; trained once each, so small differences may be chance."
    return (
        f"**Not comparable**: this change was measured on {rows}, main on {main.candidate.rows:,} of "
        f"`{_code(main.training_set.tag)}`."
    )


def _failed(verdict: Verdict) -> Iterable[str]:
    if verdict.failed:
        yield ""
        yield "Failed rules:"
        yield ""
    for rule in verdict.failed:
        where = f" ({_text(rule.slice)})" if rule.slice else ""
        yield f"- `{_code(rule.name)}`{where}: {_text(rule.detail[:_LONGEST_DETAIL])}"


def _slices(change: Verdict, main: Verdict) -> Iterable[str]:
    """The slices whose loss moved most, either way."""
    loss = change.target.loss
    before = {part.name: part.candidate for part in main.slices}
    moved = [
        (part.name, was, now, now - was)
        for part in change.slices
        if (was := _figure(before.get(part.name), loss)) is not None
        and (now := _figure(part.candidate, loss)) is not None
        and round(now - was, 4) != 0
    ]
    moved.sort(key=lambda row: -abs(row[3]))
    if not moved:
        return
    yield ""
    yield f"<details><summary>{loss.words.capitalize()} by slice: {len(moved)} moved</summary>"
    yield ""
    yield "| slice | main | this change | |"
    yield "|---|---:|---:|---|"
    for name, was, now, difference in moved[:_MOST_SLICES]:
        how = "worse" if difference > 0 else "better"
        yield f"| {_text(name)} | {_number(was)} | {_number(now)} | {difference:+.4f} ({how}) |"
    yield ""
    yield "</details>"


def _figure(measures: Measures | None, figure: Figure) -> float | None:
    return None if measures is None else measures.figures().get(figure.name)


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _text(text: str) -> str:
    """`text` that is data, with no meaning to Markdown or HTML, on one line."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#!|@~])", r"\\\1", " ".join(escaped.split()))


def _code(text: str) -> str:
    """`text` that is data, for between backticks."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")


def read_verdict_file(path: Path) -> Verdict:
    """The verdict in the file; raises `RegistryError` when it is none."""
    try:
        return Verdict.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RegistryError(
            expected=f"a verdict document in {path}",
            found=str(error).splitlines()[0],
            next_step="read the log of the job that trained; `evaluate` writes verdict.json",
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints the comment. Returns 0, or `EXIT_PERMANENT` without a readable verdict."""
    parser = argparse.ArgumentParser(description="A change's model beside main's, as Markdown.")
    parser.add_argument("--change", type=Path, required=True, help="verdict.json of the change")
    parser.add_argument("--main", type=Path, help="verdict.json of main; none where there is none yet")
    parser.add_argument("--link", help="address of the run")
    arguments = parser.parse_args(argv)
    try:
        change = read_verdict_file(arguments.change)
        main_verdict = read_verdict_file(arguments.main) if arguments.main is not None else None
    except AirloopError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_PERMANENT
    print(comment_of(change, main_verdict, link=arguments.link), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
