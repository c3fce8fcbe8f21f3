"""Keeps our own tables where a dataset's default expiration would delete them."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from bigquery.refusals import StatementError, classified
from bigquery.retries import call
from runs.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from google.cloud import bigquery

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse

_MS_A_DAY = 24 * 3600 * 1000


def keep_tables(warehouse: Warehouse, tables: Iterable[bigquery.Table | None]) -> list[str]:
    """Undo the expiry of those that have one; returns a warning for each."""
    return [_keep(warehouse, each) for each in tables if each and each.expires]


def _keep(warehouse: Warehouse, found: bigquery.Table) -> str:
    table = f"{found.project}.{found.dataset_id}.{found.table_id}"
    sentence = (
        f"Table {table} was to be deleted on {found.expires:%Y-%m-%d}, by its dataset's default"
    )
    found.expires = None
    try:
        with classified(f"the expiry of table {table}", DestinationError):
            call(warehouse, partial(warehouse.clients.bigquery.update_table, found, ["expires"]))
    except (DestinationError, StatementError):  # impossible without billing
        return f"{sentence}, and still is: this account may not change that."
    return f"{sentence}: it is kept now."


def kept_days(found: bigquery.Table) -> int | None:
    """The days that the table keeps its partitions; None: for ever."""
    partitioning = found.time_partitioning
    expiration = partitioning.expiration_ms if partitioning else None
    return int(expiration) // _MS_A_DAY if expiration else None


def vanishing_warning(table: TableId, days: int | None, *, oldest: date, today: date) -> str | None:
    """A warning if rows of the oldest day are deleted as soon as they are written."""
    if days is None or today - oldest <= timedelta(days=days):
        return None
    return (
        f"Table {table} keeps its partitions for {days} days, so sessions before"
        f" {today - timedelta(days=days)} are deleted as soon as they are published: if that is"
        f" wrong, ALTER TABLE {table.sql} SET OPTIONS (partition_expiration_days = NULL)."
    )


def dataset_warnings(dataset: bigquery.Dataset) -> list[str]:
    """What the defaults of a dataset do to the tables that a run makes there."""
    warnings = []
    if default := dataset.default_table_expiration_ms:
        warnings.append(
            f"Tables in dataset {dataset.dataset_id} are deleted after {_days(default)} days by its"
            " default: each run undoes that for its own tables."
        )
    if default := dataset.default_partition_expiration_ms:
        warnings.append(
            f"Partitions in dataset {dataset.dataset_id} are deleted after {_days(default)} days by"
            " its default: older sessions vanish as soon as they are published."
        )
    return warnings


def _days(milliseconds: int) -> str:
    return f"{int(milliseconds) / _MS_A_DAY:g}"
