"""What cannot be true of a spec at once: names that one part uses and no other has, and the like.

Belongs here: rules about several parts together. Does not belong here: a part's own rules (`spec`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airloop.use_cases.spec import UseCase


def contradictions(spec: UseCase) -> Iterable[str]:
    """Every contradiction between the parts of `spec`, as `field: what is wrong`."""
    fields = {field.name: field for field in spec.request}
    inputs = {item.name: item for item in spec.inputs}
    groups: dict[str, list[str]] = {
        "sources": [source.name for source in spec.sources] + [stream.name for stream in spec.streams],
        "sources.feeds": [feed.name for feed in spec.feeds],
        "clean_tables": [table.name for table in spec.clean_tables],
        "feature_tables": [table.name for table in spec.feature_tables],
        "feature_tables.features": [*spec.features, *spec.on_demand_features],
        "feature views": [table.name for table in spec.feature_tables]
        + [view.name for view in spec.on_demand],
        "feature services": [*filter(None, [spec.feature_service]), *spec.earlier_feature_services],
        "request": [field.name for field in spec.request],
        "inputs": [*(item.name for item in spec.inputs), *(item.name for item in spec.elapsed)],
        "gates.slices": [cut.name for cut in spec.gates.slices],
        "gates.behaviours": [behaviour.name for behaviour in spec.gates.behaviours],
    }
    for where, names in groups.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{where}: {name!r} appears {count} times"
    if spec.own_clean_tables and not spec.sources:
        unfed = ", ".join(table.name for table in spec.own_clean_tables)
        yield f"sources: there is none for the clean tables {unfed}; name one, or have them lent"
    if not spec.own_clean_tables and (spec.sources or spec.streams):
        yield "clean_tables: all are lent, so nothing reads what the sources and streams bring"
    lenders = {
        *(table.made_by for table in spec.clean_tables),
        *(table.made_by for table in spec.feature_tables),
    } - {None}
    if len(lenders) > 1 or (lenders and spec.own_clean_tables):
        others = ", ".join(sorted(map(str, lenders)))
        own = ", and some of its own" if spec.own_clean_tables else ""
        yield (
            f"clean_tables: it reads tables of {others}{own}, which are published at different times; make "
            "all of them in one use case, and have them lent"
        )
    for stream in spec.streams:
        for name in stream.topics:
            if name not in groups["sources.feeds"]:
                yield f"streams.{stream.name}: {name!r} is not a feed of any source"
    for feed in spec.feeds:
        for declared in feed.columns:
            if declared.personal == "hash" and declared.name in (*fields, *spec.entities):
                yield (
                    f"sources.feeds.{feed.name}: {declared.name!r} is hashed, so it cannot be a request "
                    "field or an entity key yet: the gateway gets it in the clear"
                )
    if spec.erasure is not None:
        named = {spec.erasure.subject, *spec.erasure.tables.values()}
        landed = [c for feed in spec.feeds for c in feed.landed if c.name in named]
        if not landed:
            yield f"erasure.subject: {spec.erasure.subject!r} is not a landed column of any feed"
        for declared in landed:
            if declared.type != "string":
                yield f"erasure: {declared.name!r} of type {declared.type} is not a string"
    for key in spec.entities:
        if key not in fields:
            yield f"feature_tables: entity {key!r} is not a request field"
    if spec.retraining.after_new_events is not None and not spec.event_table:
        yield "retraining.after_new_events: there is no event_table whose events could be counted"
    if spec.serving == "batch" and spec.retraining.after_new_events is not None:
        yield "retraining.after_new_events: nothing watches a use case that is scored in batches"
    if spec.serving == "batch" and spec.rollout.approval:
        yield "rollout.approval: in batches there are no stages that a person could look at before"
    if spec.serving == "batch" and not spec.event_table:
        yield "serving: batches need an event_table, whose events are scored"
    if spec.event_table and spec.event_table not in {table.name for table in spec.clean_tables}:
        yield f"event_table: {spec.event_table!r} is not a clean table"
    for table in spec.own_clean_tables:
        for link in table.references:
            if link.table not in groups["clean_tables"] or link.table == table.name:
                yield f"clean_tables.{table.name}.references: {link.table!r} is not another clean table"
    for view in spec.on_demand:
        for name in view.tables:
            if name not in groups["feature_tables"]:
                yield f"on_demand.{view.name}: {name!r} is not a feature table"
        for name in view.request:
            if name not in fields:
                yield f"on_demand.{view.name}: {name!r} is not a request field"
    for name, given in (("definitions", spec.feature_definitions), ("service", spec.feature_service)):
        if spec.has_features and given is None:
            yield f"feature_{name}: it has features, so it needs one"
    for service, asked in spec.earlier_feature_services.items():
        for name in asked:
            if name not in (*spec.features, *spec.on_demand_features):
                yield f"earlier_feature_services.{service}: no table has the feature {name!r}"
    outcome = spec.label.outcome
    if outcome and outcome.name in (
        *inputs,
        *fields,
        *groups["feature_tables.features"],
        spec.label.name,
    ):
        yield f"label.outcome: {outcome.name!r} is an input or a feature too: it would tell the label"
    if outcome and spec.label.target.kind != "binary":
        yield f"label.outcome: only a label that is 1 or 0 cuts one in two, this is {spec.label.target.kind}"
    known = {figure.name for figure in spec.label.target.figures}
    for name in spec.gates.figures:
        if name not in known:
            yield (
                f"gates.figures: {name!r} is no figure of a {spec.label.target.kind} label, which has "
                + ", ".join(sorted(known))
            )
    if spec.event_field not in fields or fields[spec.event_field].type != "datetime":
        yield f"event_field: {spec.event_field!r} is not a datetime request field"
    for item in spec.inputs:
        if item.request_field is None:
            if item.name not in (*spec.features, *spec.on_demand_features):
                yield f"inputs: {item.name!r} is neither a feature nor taken from a request field"
        elif item.request_field not in fields:
            yield f"inputs: {item.name!r} is taken from {item.request_field!r}, not a request field"
        elif (item.type in ("instant", "local_time")) != (fields[item.request_field].type == "datetime"):
            yield f"inputs: {item.name!r} of type {item.type} cannot come from {item.request_field!r}"
        for identifier in spec.identifiers:
            if identifier in (item.name, item.request_field):
                yield f"inputs: {item.name!r} is the identifier {identifier}"
    for derived in spec.elapsed:
        for end in (derived.since, derived.until):
            if end not in inputs or inputs[end].type != "instant":
                yield f"elapsed: {derived.name!r} needs {end!r} to be an input of type instant"
    for column in spec.gates.baseline:
        hour_of = column.removesuffix("_hour")
        is_hour = hour_of != column and hour_of in inputs and inputs[hour_of].type == "local_time"
        if not is_hour and (column not in inputs or inputs[column].type != "string"):
            yield f"gates.baseline: {column!r} is neither a string input nor the hour of a local_time one"
    for name in spec.event_key:
        if name not in fields or fields[name].type == "number":
            yield f"event_key: {name!r} is not a request field, or a number, whose texts differ"
    for name in spec.rollout.sticky_by:
        if name not in fields:
            yield f"rollout.sticky_by: {name!r} is not a request field"
    for behaviour in spec.gates.behaviours:
        for name in (*behaviour.changes, *behaviour.only):
            if name not in inputs or inputs[name].type == "string":
                yield f"gates.behaviours.{behaviour.name}: {name!r} is no numeric or time input"
    folds = spec.training.cross_validation
    days = spec.training.train_days + spec.training.validation_days
    if folds and folds.held_out_days >= days:
        yield (
            f"training.cross_validation: {folds.folds} folds of {folds.fold_days} days leave the first "
            f"one nothing to learn from in {days} days of the train and validation windows"
        )
    for cut in spec.gates.slices:
        kind = inputs[cut.input].type if cut.input in inputs else "none"
        if kind not in ("string", "local_time", "double") or bool(cut.edges) == (kind == "string"):
            yield (
                f"gates.slices.{cut.name}: {cut.input!r} must be a string input without edges, or one of "
                "type local_time or double with them"
            )
        if list(cut.edges) != sorted(set(cut.edges)):
            yield f"gates.slices.{cut.name}: edges must rise, found {list(cut.edges)}"
