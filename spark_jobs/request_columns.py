"""What a gateway would know of a table's row: the request that a client would send, and the event's name.

Belongs here: columns that equal what `airloop.prediction_request` makes of a request. Does not belong here:
the model's inputs, most of which are features.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from airloop.prediction_request import EVENT_DIGITS
from airloop.use_cases.spec import LOCAL_SUFFIX, RequestField, UseCase


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


def event_column(spec: UseCase) -> Column:
    """What names the event of a row: `airloop.prediction_request.event_of`, in Spark."""
    texts = F.concat_ws("\x1f", *map(_text, spec.event_fields))
    return F.substring(F.sha2(texts, 256), 1, EVENT_DIGITS)


def _text(field: RequestField) -> Column:
    value = F.col(field.name)
    if field.type == "datetime":
        value = value.cast("long")
    return F.coalesce(value.cast("string"), F.lit(""))
