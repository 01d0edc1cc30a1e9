"""A plan for machines: CSV, a line a trial; JSON with cells, sums and notes besides.

Hides both formats. Unknown is an empty cell in CSV and null in JSON; a sum says how many of its
parts are unknown. Columns are only ever added.
"""

import csv
import io
import json
from typing import Any

from imgpull.sweep.forecasting.report import PlanReport, notes, overheads_of
from imgpull.sweep.forecasting.spend import Row, Total
from imgpull.sweep.plan import factor_levels

SCHEMA = 1


def as_csv(report: PlanReport) -> str:
    """The trials in their order."""
    keys = list(factor_levels([row.planned.cell.factors for row in report.rows]))
    lines = [_line(report, row, keys) for row in report.rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(_line_keys(keys)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_json(report: PlanReport) -> str:
    """Everything, with the sums."""
    settings, prices, sums = report.settings, report.prices, report.totals
    whole = {
        "schema": SCHEMA,
        "command": report.command,
        "continues": str(report.begun) if report.begun else None,
        "order": settings.order,
        "seed": settings.seed,
        "trials": [
            {**_trial(report, row), "factors": dict(row.planned.cell.factors)}
            for row in report.rows
        ],
        "excluded": [
            {"overrides": list(e.overrides), "factors": dict(e.factors), "by": e.by}
            for e in report.excluded
        ],
        "totals": {
            "wall_s": _sum(sums.wall_s),
            "virtual_s": _sum(sums.virtual_s),
            "waiting_share": sums.waiting_share,
            "pulling_share": sums.pulling_share,
            "node_hours": _sum(sums.node_hours),
            "cost": _sum(sums.cost),
            "pool_node_hours": _sum(sums.pool_node_hours),
            "pool_cost": _sum(sums.pool_cost),
            "registry_bytes": _sum(sums.registry_bytes),
            "virtual_bytes": _sum(sums.virtual_bytes),
            "built_hours": _sum(sums.built_hours),
            "built_node_hours": _sum(sums.built_node_hours),
            "built_cost": _sum(sums.built_cost),
        },
        "built": [
            {
                "shape": each.setup.shape.text,
                "setup": each.setup.key,
                "setup_s": each.setup.took_s,
                "trials": each.trials,
                "nodes": each.setup.shape.all_nodes,
                "hours": _sum(each.hours),
                "node_hours": _sum(each.node_hours),
                "cost": _sum(each.cost),
            }
            for each in report.builds
        ],
        "confounded_with_provisioning": list(report.confounded),
        "pools": [
            {"cluster": p.cluster, "vm_size": p.vm_size, "nodes": p.nodes, "vm_hour": p.price}
            for p in report.pools
        ],
        "prices": {
            "date": prices.date.isoformat() if prices.date else None,
            "currency": prices.currency,
            "egress_gb": prices.egress_gb,
        },
        "overheads": [
            {"name": o.name, "took_s": o.took_s, "source": o.source} for o in overheads_of(report)
        ],
        "predicting": {
            "took_s": round(report.predicting_s, 3),
            "cells": report.cells,
            "simulated": report.simulated,
        },
        "notes": notes(report),
    }
    return json.dumps(whole, indent=2) + "\n"


def _sum(found: Total) -> dict[str, Any]:
    return {"value": _round(found.value), "unknown": found.unknown}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _trial(report: PlanReport, row: Row) -> dict[str, Any]:
    planned, said = row.planned, row.prediction
    return {
        "position": planned.position,
        "block": planned.block,
        "trial": planned.trial,
        "attempt": planned.attempt,
        "name": planned.name,
        "trial_id": planned.trial_id,
        "cell_id": planned.cell.cell_id,
        "engine": planned.job.engine.kind,
        "cache": planned.job.cache,
        "nodes": planned.job.nodes,
        "wall_s": _round(row.wall_s),
        "virtual_s": _round(said.virtual_s),
        "waiting_s": _round(said.waiting_s),
        "pulling_s": _round(said.pulling_s),
        "basis": said.basis,
        "reason": said.reason,
        "node_hours": _round(row.node_hours),
        "cost": _round(row.cost),
        "currency": report.prices.currency,
        "registry_bytes": _whole(row.registry_bytes),
        "virtual_bytes": _whole(row.virtual_bytes),
    }


_COLUMNS = (
    "position", "block", "trial", "attempt", "name", "trial_id", "cell_id", "engine", "wall_s",
    "virtual_s", "waiting_s", "pulling_s", "basis", "reason", "node_hours", "cost", "currency",
    "registry_bytes", "virtual_bytes",
)  # fmt: skip


def _line_keys(factors: list[str]) -> list[str]:
    return [*_COLUMNS[:8], *factors, *_COLUMNS[8:]]


def _line(report: PlanReport, row: Row, factors: list[str]) -> dict[str, Any]:
    found = _trial(report, row)
    levels = {key: row.planned.cell.factors.get(key) for key in factors}
    return {**{key: found[key] for key in _COLUMNS}, **levels}
