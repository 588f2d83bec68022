"""What a gateway would know of a table's row: the request that a client would send, the event, the label.

Belongs here: columns that equal what `airloop.prediction_request` makes of a request, and what a client could
tell of its outcome. Does not belong here: the model's inputs, most of which are features.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from airloop.prediction_request import EVENT_DIGITS
from airloop.use_cases.spec import LOCAL_SUFFIX, Label, RequestField, UseCase


def request_column(spec: UseCase) -> Column:
    """The request that a client would have sent, as JSON: datetimes with the offset of their place."""
    fields = []
    for field in spec.request:
        value = F.col(field.name)
        if field.type == "datetime":
            local = F.col(f"{field.name}{LOCAL_SUFFIX}").cast("timestamp")
            minutes = ((local.cast("long") - value.cast("long")) / 60).cast("int")
            offset = F.format_string(
                "%s%02d:%02d",
                F.when(minutes < 0, "-").otherwise("+"),
                (F.abs(minutes) / 60).cast("int"),
                F.abs(minutes) % 60,
            )
            value = F.concat(F.date_format(local, "yyyy-MM-dd'T'HH:mm:ss"), offset)
        fields.append(value.alias(field.name))
    return F.to_json(F.struct(*fields))


def label_column(label: Label) -> Column:
    """The label as training reads it: 0 or 1, the name of a class, or a number."""
    kinds = {"binary": "int", "multiclass": "string"}
    return F.col(label.name).cast(kinds.get(label.target.kind, "double"))


def label_number(label: Label) -> Column:
    """The label as the log of outcomes has it: of several classes its place among them."""
    if label.target.kind != "multiclass":
        return F.col(label.name).cast("double")
    classes = F.array(*map(F.lit, label.target.classes))
    place = F.array_position(classes, F.col(label.name).cast("string"))
    return F.when(place > 0, place - 1).cast("double")


def event_column(spec: UseCase) -> Column:
    """What names the event of a row: `airloop.prediction_request.event_of`, in Spark."""
    texts = F.concat_ws("\x1f", *map(_text, spec.event_fields))
    return F.substring(F.sha2(texts, 256), 1, EVENT_DIGITS)


def _text(field: RequestField) -> Column:
    value = F.col(field.name)
    if field.type == "datetime":
        value = value.cast("long")
    return F.coalesce(value.cast("string"), F.lit(""))
