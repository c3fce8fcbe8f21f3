"""How the declared columns differ from those that the stored rows were built with. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bigquery.tables import TableId
    from sessions.budget import Budget
    from sessions.metric_types import MetricTable
    from sessions.plan import Plan

_KINDS = {
    "full_load": "full load",
    "incremental": "incremental load",
    "dates": "load by dates",
    "limit": "load with a limit",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChanges:
    """The columns of `sessions` that differ, by how they do."""

    added: tuple[str, ...] = ()
    """Declared, and not in the rows of the last run."""
    changed: tuple[str, ...] = ()
    """Declared in another way, or read from other properties."""
    undeclared: tuple[str, ...] = ()
    """Stored, and no longer declared."""

    def to_json(self) -> dict[str, list[str]]:
        """Every field, JSON-ready."""
        return {each.name: list(getattr(self, each.name)) for each in fields(self)}

    def __str__(self) -> str:
        """One sentence for each kind of difference."""
        differences = (
            (self.added, "Added"),
            (self.changed, "Changed"),
            (self.undeclared, "No longer declared"),
        )
        sentences = [f"{what}: {', '.join(names)}." for names, what in differences if names]
        return " ".join(sentences) or "No column differs from the stored ones."


def column_changes(
    metric_table: MetricTable, built_with: Mapping[str, str] | None, stored: Iterable[str]
) -> ColumnChanges:
    """The difference. `stored`: the columns that the table `sessions` has.

    `built_with`: the version of each column that the stored rows were built with; None where no run
    has succeeded, or an older release wrote the state.
    """
    versions = metric_table.column_versions()
    undeclared = tuple(name for name in stored if name not in versions)
    if not built_with:
        return ColumnChanges(undeclared=undeclared)
    return ColumnChanges(
        added=tuple(name for name in versions if name not in built_with),
        changed=tuple(
            name for name in versions if built_with.get(name, versions[name]) != versions[name]
        ),
        undeclared=undeclared,
    )


def announcement(
    plan: Plan, changes: ColumnChanges, *, table: TableId, budget: Budget, size: int
) -> str:
    """What a run is about to read, and why. `size`: the bytes, as BigQuery says by a dry run."""
    days = f"{len(plan.days)} day{'s' if len(plan.days) != 1 else ''}"
    reads = f"{days}, up to {budget.amount(size)} of table {table}"
    kind, differs = (
        _KINDS[plan.kind],
        f" {changes}" if plan.last_state or changes.undeclared else "",
    )
    if plan.has_other_metrics:
        return f"Metrics changed: {kind} of {reads}.{differs}"
    because = f", because {plan.reason}" if plan.reason else ""
    return f"{kind.capitalize()} of {reads}{because}.{differs}"
