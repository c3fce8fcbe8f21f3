"""What the console's pages share: settings, clients, questions, and how a run is started."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bigquery.tables import TableId
from service.console.person_sessions_sql import Tables
from service.console.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from runs.report import RunReport
    from runs.request import RunRequest
    from runs.settings import Settings
    from service.console.queries import Connect
    from service.readiness import Readiness
    from sessions.metric_types import MetricTable

_TABLES: Final = ("sessions", "persons", "identities", "ties")


# Without slots, so that the metric table is looked up once.
@dataclass(frozen=True, kw_only=True)
class Site:
    """A deployment, as the pages see it."""

    settings: Settings
    connect: Connect
    readiness: Readiness
    start: Callable[[RunRequest], RunReport]
    """Runs a job, and returns when the run has ended."""

    @cached_property
    def queries(self) -> Queries:
        """Asks BigQuery."""
        return Queries(self.settings, self.connect)

    @cached_property
    def metric_table(self) -> MetricTable:
        """The columns that there are to look at: those of the sessions job."""
        module: Any = import_module("config.metrics_file")
        table: MetricTable = module.metric_table(self.settings.metrics_file)
        return table

    @property
    def tables(self) -> Tables:
        """The published tables."""
        return Tables(**{name: self.table(name) for name in _TABLES})

    def table(self, name: str) -> str:
        """A table of the destination, as it stands in SQL."""
        dataset = self.settings.aggregated_dataset_id
        return TableId(project=self.settings.project_id, dataset=dataset, name=name).sql
