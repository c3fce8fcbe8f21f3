"""What a run would read: the statement for a dry run, which bills nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bigquery.parameters import scalar
from runs.request import FIRST_DAY
from sessions import plan, projection, sources

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime

    from bigquery.parameters import Parameter
    from runs.request import RunRequest
    from service.console.site import Site
    from sessions.sources import Source


def events_source(site: Site) -> Source:
    """The events table as it is read. Raises SourceError where it can't be."""
    import etl_functions as etl

    with site.connect() as warehouse:
        return etl.find_source(warehouse, sources.source_tables(site.settings)["events"])


def source_sql(site: Site, wanted: RunRequest, now: datetime) -> tuple[str, list[Parameter]]:
    """The projection of the days that a run would read: nearly all of what it is billed for."""
    source = events_source(site)
    first = wanted.start_date or FIRST_DAY
    last = wanted.end_date or now.date() + timedelta(days=1)
    rows = plan.ranges_sql(source, _days(first, last))
    sql = projection.project_sql(site.metric_table, source, rows)
    return sql, [scalar("snapshot_at", "TIMESTAMP", now - timedelta(seconds=2))]


def _days(first: date, last: date) -> Iterable[Any]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))
