"""A Parquet file in memory into a table, by a load job. Knows no row and no table by name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bigquery.destination import schema_field
from bigquery.jobs import run_job
from bigquery.refusals import classified
from bigquery.retries import HTTP_SECONDS, retry, start, wait_for
from runs.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BytesIO

    from google.cloud import bigquery

    from bigquery.tables import TableId, TableSchema
    from bigquery.warehouse import Warehouse


def start_load(
    warehouse: Warehouse, table: TableId, file: BytesIO, *, part: str, schema: TableSchema
) -> Callable[[], float]:
    """Start appending the file's rows to a table; call the result to wait.

    It returns the seconds taken. `part` names the load among those of the run.
    """
    client = warehouse.clients.bigquery
    config = _config(schema)
    size = len(file.getbuffer())

    def submit(job_id: str) -> bigquery.LoadJob:
        return client.load_table_from_file(
            file,
            str(table),
            rewind=True,
            size=size,
            job_id=job_id,
            location=warehouse.settings.location,
            job_config=config,
            timeout=HTTP_SECONDS,
            num_retries=0,
        )

    def load() -> float:
        started = time.monotonic()
        run_job(warehouse, f"load_{part}", retry()(submit))
        return time.monotonic() - started

    outcome = start(load)

    def finish() -> float:
        with classified(f"the load of {part}", DestinationError):
            return wait_for(warehouse, outcome)

    return finish


def _config(schema: TableSchema) -> bigquery.LoadJobConfig:
    from google.cloud import bigquery

    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        schema=[schema_field(each) for each in schema.fields],
        source_format="PARQUET",
        write_disposition="WRITE_APPEND",
        labels={"app": "posthog-etl", "step": "load"},
    )
    config.parquet_options = options
    return config
