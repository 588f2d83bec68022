"""The command-line arguments that training's jobs have in common, references among them.

Belongs here: declaring and parsing them, with an error that a person can act on. Does not belong here: what
a job does.
"""

from __future__ import annotations

import argparse
from typing import TypeVar

from pydantic import ValidationError

from airloop.errors import SpecError
from airloop.references import Reference, TrainingSet, Tuned
from airloop.settings import Settings
from airloop.training.provenance import code_commit

R = TypeVar("R", bound=Reference)


def training_parser(
    description: str, *, parameters: bool = False, commit: bool = False
) -> argparse.ArgumentParser:
    """The parser of a job on a training set: `--use-case`, `--training-set`, and what else is asked for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--training-set", required=True, help="TrainingSet reference, JSON")
    if parameters:
        parser.add_argument("--parameters", help="Tuned reference, JSON; without it the spec's parameters")
    if commit:
        parser.add_argument("--code-commit", help="commit to record; by default the repository's")
    return parser


def training_set_of(arguments: argparse.Namespace) -> TrainingSet:
    """What `--training-set` names; raises `SpecError`."""
    return parse_reference(TrainingSet, arguments.training_set, "--training-set")


def tuned_of(arguments: argparse.Namespace) -> Tuned | None:
    """What `--parameters` names, if it is given; raises `SpecError`."""
    given = arguments.parameters
    return parse_reference(Tuned, given, "--parameters") if given else None


def commit_of(arguments: argparse.Namespace, settings: Settings) -> str:
    """The commit to record: `--code-commit`, or the repository's."""
    return str(arguments.code_commit or code_commit(settings.repository))


def parse_reference(kind: type[R], text: str, flag: str) -> R:
    """The reference that `text`, the value of `flag`, is in JSON; raises `SpecError` for anything else."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the text'}: {item['msg']}" for item in error.errors()
        )
        raise SpecError(
            expected=f"{flag} to be a {kind.__name__} reference in JSON",
            found=found,
            next_step=f"pass what the job that makes the {kind.__name__} wrote to its result file",
        ) from None
