"""The built-in sample: orders of customers, made up, from which a new use case starts.

Belongs here: what the sample is like. Does not belong here: what is written about it (`columns`, `write`).
"""

from __future__ import annotations

import csv
import io
import random
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

DAYS: Final = 77
"""Enough for the lookback, the windows and the label of the spec that is written."""
CUSTOMERS: Final = 400
SEED: Final = 7

_ORDERS_PER_DAY: Final = {"free": 0.06, "basic": 0.14, "pro": 0.3}
"""Mean of the plan; customers differ around it, so that their own past says more than their plan."""


def sample_csv(last_day: date) -> str:
    """The sample as text: each order of every customer up to the end of `last_day`, in order of time."""
    chance = random.Random(SEED)  # noqa: S311 - a sample, no secret
    end = datetime.combine(last_day, time(), UTC) + timedelta(days=1)
    orders = []
    for number in range(CUSTOMERS):
        plan = chance.choices(list(_ORDERS_PER_DAY), weights=(5, 3, 2))[0]
        a_day = _ORDERS_PER_DAY[plan] * chance.lognormvariate(0, 0.8)
        moment = end - timedelta(days=DAYS)
        while (moment := moment + timedelta(days=chance.expovariate(a_day))) < end:
            amount = round(chance.lognormvariate(3, 0.6), 2)
            orders.append((f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"c{number:04}", plan, amount))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("customer_id", "ordered_at", "plan", "amount"))
    writer.writerows((customer, at, plan, amount) for at, customer, plan, amount in sorted(orders))
    return text.getvalue()
