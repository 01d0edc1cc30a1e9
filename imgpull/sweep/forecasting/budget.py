"""What a sweep was thought to use up when it began, for its ledger: the report compares.

Hides the line's form. With the prices of that day in it, a report needs no other file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from imgpull.sweep.forecasting.forecast import Forecast
from imgpull.sweep.forecasting.prices import read_prices
from imgpull.sweep.forecasting.spend import Total, builds, rows, totals
from imgpull.sweep.plan import Planned
from imgpull.sweep.shapes import shape_of

EVENT = "budget"


def events(plan: Sequence[Planned], found: Forecast) -> list[Mapping[str, Any]]:
    """The ledger's line; none where nothing is rented. ConfigError for a broken price file."""
    prices = read_prices()
    every = rows(plan, found, prices)
    if not any(row.real for row in every):
        return []
    sums = totals(every, prices)
    built = builds(every, prices)
    return [
        {
            "event": EVENT,
            "currency": prices.currency,
            "prices_date": prices.date.isoformat() if prices.date else None,
            "vm_hour": dict(prices.vm_hour),
            "trials": {
                row.planned.trial_id: {
                    "cell_id": row.planned.cell.cell_id,
                    "node_hours": row.node_hours,
                    "cost": row.cost,
                }
                for row in every
            },
            "built": {
                "node_hours": _whole(sums.built_node_hours),
                "cost": _whole(sums.built_cost),
                "cells": {
                    row.planned.cell.cell_id: [
                        [m.what, m.vm_size, m.count] for m in each.setup.shape.machines
                    ]
                    for each in built
                    for row in every
                    if shape_of(row.planned.cell) == each.setup.shape
                },
            }
            if built
            else None,
        }
    ]


def _whole(found: Total) -> float | None:
    """A part of a sum is no sum."""
    return None if found.unknown else found.value
