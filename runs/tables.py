"""The tables that every run writes: the lease and the ledger. Pure."""

from __future__ import annotations

from bigquery.tables import Field, TableSchema

# `runs/lease_sql.py` creates the table together with its one row.
LEASE = TableSchema(
    fields=(
        Field(name="job", type="STRING", description="The job whose lease it is."),
        Field(name="fence", type="INT64", description="Grows with every run that takes the lease."),
        Field(name="run_id", type="STRING", description="The run that holds it."),
        Field(name="expires_at", type="TIMESTAMP", description="Until when it holds it (UTC)."),
        Field(
            name="published_run_id",
            type="STRING",
            description="The last run whose publication committed.",
        ),
        Field(
            name="triggers",
            type="RECORD",
            is_repeated=True,
            fields=(
                Field(
                    name="trigger",
                    type="STRING",
                    description="A scheduled delivery, or an execution of a job.",
                ),
                Field(name="run_id", type="STRING", description="The run that it led to."),
            ),
            description="The latest deliveries that need no other attempt.",
        ),
    ),
    description="Who may publish now, and which scheduled deliveries are settled: one row.",
)

RUNS = TableSchema(
    fields=(
        Field(name="run_id", type="STRING", description="The run: the key; sorts by its start."),
        Field(name="job", type="STRING", description="What was run: sessions."),
        Field(
            name="status",
            type="STRING",
            description="running, succeeded, failed, aborted, timed_out or lease_lost.",
        ),
        Field(
            name="kind",
            type="STRING",
            description="full_load, incremental, nothing_new, dates, limit or verify.",
        ),
        Field(name="engine", type="STRING", description="What aggregated: pandas or bigquery."),
        Field(name="started_at", type="TIMESTAMP", description="When it began (UTC)."),
        Field(name="finished_at", type="TIMESTAMP", description="When it ended (UTC)."),
        Field(name="error", type="STRING", description="What ended it, in one sentence."),
        Field(name="report", type="STRING", description="The whole report, as JSON."),
    ),
    description="The run ledger: a report that nothing depends on.",
)
