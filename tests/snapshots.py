"""Every statement that the product sends, as files that a reviewer reads: `make snapshots`.

The tables of a run stand under their short names, since full ones carry the run's id.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import etl_functions as etl
from bigquery.destination import replace_view_sql
from bigquery.tables import TableId
from config.metrics_file import SHIPPED_FILE
from process_persons import daily_activity_sql, derived_counts_sql, identities_sql, persons_sql
from runs import lease_sql, ledger_sql
from sessions import (
    audit,
    bigquery_engine,
    checks,
    enrichment,
    freshness,
    plan,
    projection,
    samples,
    sources,
    splitting,
    watch,
)
from sessions import publication as publish
from sessions.data_dictionary import dictionary_text
from sessions.dbt_sources import sources_text
from sessions.metrics import POSTHOG_METRICS
from sessions.metrics_file_schema import metrics_file_schema
from sessions.persons import IDENTITIES, persons_schema
from sessions.sources import SourceTables
from tests.apis.statements import statements as of_apis
from tests.console_statements import statements as of_the_console
from tests.paths import ROOT
from tests.shipped import METRIC_TABLE

SNAPSHOTS = Path(__file__).parent / "snapshots"
DICTIONARY = ROOT / "docs" / "data-dictionary.md"
DBT_SOURCES = ROOT / "docs" / "dbt" / "sources.yml"

DAYS = (dt.date(2026, 10, 4), dt.date(2026, 10, 5), dt.date(2026, 10, 9))
STAGING = publish.StagingTables(
    **{name: f"staging_{name}" for name in publish.StagingTables.__dataclass_fields__}
)
SMALL = {name: getattr(STAGING, name) for name in ("user_keys", "documents", "channels")}
NEWEST = freshness.newest_loaded_sql(
    sessions="sessions", projected=STAGING.projected, touched=STAGING.touched
)
DERIVED = {"sessions": "sessions", "identities": "identities", "persons": "persons"}
DESTINATION = publish.DestinationTables(
    sessions="sessions",
    split_ids="split_ids",
    ties="ties",
    quarantined="quarantined_sessions",
    state=etl.STATE_TABLE,
    lease="etl_lease_sessions",
)

# The source tables as PostHog and Firebase export them.
COLUMNS = {
    "posthog_etl.events": {
        "uuid": "STRING",
        "event": "STRING",
        "properties": "STRING",
        "distinct_id": "STRING",
        "timestamp": "TIMESTAMP",
        "bq_ingested_timestamp": "TIMESTAMP",
    },
    "posthog_etl.sessions": {
        "session_id": "STRING",
        "end_timestamp": "TIMESTAMP",
        "channel_type": "STRING",
    },
    "firebase_etl_prod.users": {
        "user_id": "STRING",
        "phoneNumber": "STRING",
        "email": "STRING",
        "createdAt": "TIMESTAMP",
        "etl_loaded_at": "TIMESTAMP",
    },
    "firebase_etl_prod.events": {
        "document_id": "STRING",
        "user_id": "STRING",
        "createdAt": "TIMESTAMP",
        "type": "STRING",
        "etl_loaded_at": "TIMESTAMP",
    },
}

# Firebase's extension, its raw tables.
EXTENSION = {
    "timestamp": "TIMESTAMP",
    "event_id": "STRING",
    "document_name": "STRING",
    "operation": "STRING",
    "data": "STRING",
    "document_id": "STRING",
}


def source(
    name: str,
    logical: tuple[sources.LogicalColumn, ...],
    **shape: Any,  # noqa: ANN401 - of TableShape
) -> sources.Source:
    """A source table as we read it."""
    dataset, _, table = name.partition(".")
    return sources.resolve(
        sources.TableShape(
            table=TableId(project="my-project", dataset=dataset, name=table),
            **{"columns": COLUMNS[name], **shape},
        ),
        logical,
    )


def events(properties: str = "STRING", **shape: Any) -> sources.Source:  # noqa: ANN401 - likewise
    """The events, with `properties` of that type."""
    columns = COLUMNS["posthog_etl.events"] | {"properties": properties}
    name = "posthog_etl.events"
    return source(name, sources.EVENTS, columns=columns, day_partitioned_by="timestamp", **shape)


def source_tables(**shape: Any) -> SourceTables:  # noqa: ANN401 - likewise
    """All of them."""
    return SourceTables(
        events=events(**shape),
        posthog_sessions=source("posthog_etl.sessions", sources.POSTHOG_SESSIONS, **shape),
        users=source("firebase_etl_prod.users", sources.USERS, **shape),
        documents=source("firebase_etl_prod.events", sources.DOCUMENTS, **shape),
    )


def a_plan(kind: plan.Kind) -> plan.Plan:
    """A plan of that kind over DAYS."""
    return plan.Plan(kind=kind, reason=None, days=DAYS, counts={}, limit=100)


def statements() -> dict[str, str]:
    """Each statement by the name of its file, in the order of a run."""
    return {
        **_lease(),
        **_extract(),
        **_newest(),
        **_planned(),
        **_aggregated(),
        **_published(),
        **_read(),
        **_verified(),
        **of_apis(),
        **of_the_console(),
    }


def _verified() -> dict[str, str]:
    tables = source_tables()
    return {
        "verify_sample": samples.sample_sql(METRIC_TABLE, "sessions", size=20),
        "verify_session": samples.session_sql(METRIC_TABLE, "sessions"),
        "verify_kept_out": samples.kept_out_sql("quarantined_sessions", "sessions"),
        "verify_events": samples.events_sql(METRIC_TABLE, tables.events, DAYS),
        "verify_events_of_pieces": samples.events_sql(
            METRIC_TABLE, tables.events, DAYS[:1], of_pieces=True
        ),
        "verify_users": samples.users_sql(tables.users),
        "verify_documents": samples.documents_sql(tables.documents),
        "verify_posthog_sessions": samples.posthog_sessions_sql(tables.posthog_sessions),
    }


def _lease() -> dict[str, str]:
    table = "etl_lease_sessions"
    return {
        "lease_fenced": lease_sql.fenced_sql(table, ["DELETE FROM greetings\nWHERE TRUE"]),
        "lease_create": lease_sql.create_lease_sql(table, "sessions"),
        "lease_take": lease_sql.take_lease_sql(table),
        "lease_renew": lease_sql.renew_lease_sql(table),
        "lease_release": lease_sql.release_lease_sql(table),
        "lease_settle": lease_sql.settle_lease_sql(table),
    }


def _extract() -> dict[str, str]:
    days = plan.ranges_sql(events(), DAYS)
    exclusions = projection.exclusion_sql(distinct_ids=True, libs=True, emulators=True, bots=True)
    tables = source_tables()
    view = source("posthog_etl.events", sources.EVENTS, is_table=False)
    return {
        "day_counts": plan.day_counts_sql(tables.events),
        "day_counts_of_a_view": plan.day_counts_sql(view),
        "project_string": projection.project_sql(METRIC_TABLE, tables.events, days),
        "project_json": projection.project_sql(
            METRIC_TABLE, events("JSON"), days, exclusions=exclusions, sessions=STAGING.touched
        ),
        "user_keys": enrichment.user_keys_sql(METRIC_TABLE, tables.users),
        "documents": enrichment.documents_sql(METRIC_TABLE, tables.documents),
        "documents_of_the_extension": enrichment.documents_sql(
            METRIC_TABLE, source("firebase_etl_prod.events", sources.DOCUMENTS, columns=EXTENSION)
        ),
        "channels": enrichment.channels_sql(METRIC_TABLE, tables.posthog_sessions),
    }


def _newest() -> dict[str, str]:
    return {
        "newest_valid": freshness.newest_valid_sql(
            METRIC_TABLE, sources.without_past(events()), DAYS, ()
        ),
    }


def _planned() -> dict[str, str]:
    projected, touched = STAGING.projected, STAGING.touched
    kinds: tuple[plan.Kind, ...] = ("full_load", "incremental", "dates")
    known = "quarantined_sessions"
    return {
        **{
            f"touched_{kind}": plan.touched_sql(
                METRIC_TABLE,
                a_plan(kind),
                projected=projected,
                sessions="sessions",
                quarantined=known,
            )
            for kind in kinds
        },
        "found": plan.found_sql(projected=projected, quarantined=known),
        "latest": plan.latest_sql(projected=projected, found="staging_found", limit=100),
        "other_days": plan.other_days_sql(
            touched=touched, sessions="sessions", split=STAGING.split
        ),
        "split": splitting.split_sql(METRIC_TABLE, projected=projected, touched=touched),
        "split_count": splitting.count_sql(STAGING.split),
        "split_pieces": splitting.pieces_sql(
            projected=projected, touched=touched, split=STAGING.split, is_full_load=True
        ),
        "split_left_out": splitting.left_out_sql(touched=touched, split=STAGING.split),
        "accounts": plan.accounts_sql(
            projected=projected, touched=touched, quarantined=known, rest="unchanged"
        ),
        "planned": plan.planned_sql(METRIC_TABLE, projected=projected, touched=touched, batches=8),
        "batches": projection.batches_sql(
            METRIC_TABLE, projected=projected, planned=STAGING.planned
        ),
        "non_null_counts": projection.non_null_sql(METRIC_TABLE, STAGING.batches),
    }


def _aggregated() -> dict[str, str]:
    return {
        "aggregate": bigquery_engine.aggregate_sql(METRIC_TABLE, STAGING.batches),
        "new_rows": enrichment.new_rows_sql(
            METRIC_TABLE, aggregated=STAGING.aggregated, planned=STAGING.planned, **SMALL
        ),
        "outdated_count": enrichment.outdated_count_sql(METRIC_TABLE, sessions="sessions", **SMALL),
        "outdated": enrichment.outdated_sql(
            METRIC_TABLE, sessions="sessions", touched=STAGING.touched, **SMALL
        ),
        "none_outdated": enrichment.none_outdated_sql(METRIC_TABLE, sessions="sessions"),
        "outdated_rows": enrichment.outdated_rows_sql(
            METRIC_TABLE,
            sessions="sessions",
            outdated=STAGING.outdated,
            dates=plan.dates_sql("s.session_date", DAYS),
        ),
        "audit": audit.audit_sql(STAGING, NEWEST),
    }


def _published() -> dict[str, str]:
    keys = {"user_keys": STAGING.user_keys, "sessions": "sessions"}
    identities = identities_sql(METRIC_TABLE, ties="ties", user_keys=STAGING.user_keys)
    persons = persons_sql(
        METRIC_TABLE, **keys, identities="identities", documents=STAGING.documents, churn_days=14
    )
    kinds: tuple[plan.Kind, ...] = ("full_load", "incremental")
    return {
        **{
            f"publish_{kind}": publish.publish_sql(
                METRIC_TABLE,
                a_plan(kind),
                STAGING,
                destination=DESTINATION,
                found=publish.Found(session_dates=DAYS, read_whole=DAYS, has_split=True),
            )
            for kind in kinds
        },
        "persons": publish.replace_sql(
            "etl_lease_sessions",
            {
                "identities": (IDENTITIES, identities),
                "persons": (persons_schema(METRIC_TABLE), persons),
            },
            counts=derived_counts_sql(
                **DERIVED, watched_days=watch.days_sql(METRIC_TABLE, "sessions", as_struct=True)
            ),
        ),
        "daily_activity": daily_activity_sql(METRIC_TABLE, **DERIVED),
        "view_replaced": replace_view_sql("daily_activity", "SELECT 1 AS session_count"),
    }


def _read() -> dict[str, str]:
    runs = "etl_runs"
    return {
        "ledger_runs": ledger_sql.runs_sql(runs, "etl_lease_sessions", limit=20),
        "ledger_reports": ledger_sql.reports_sql(runs, "etl_lease_sessions", limit=30),
        "ledger_verifications": ledger_sql.verifications_sql(runs, limit=8),
        "ledger_run": ledger_sql.run_sql(runs, "etl_lease_sessions"),
        "ledger_leases": ledger_sql.leases_sql(["etl_lease_sessions", "etl_lease_other"]),
        "ledger_failure": ledger_sql.failure_sql(runs),
        "ledger_last_successes": ledger_sql.last_successes_sql(runs),
        "check_figures": checks.figures_sql("sessions"),
        "watch_days": watch.days_sql(METRIC_TABLE, "sessions"),
        "watch_reports": watch.reports_sql(runs),
        "check_days": checks.loaded_days_sql("sessions"),
        "ready_query": checks.nothing_sql(),
        "ready_creation": checks.creation_sql("ready"),
        "ready_change": checks.change_sql("sessions"),
        "ready_past": checks.past_sql(events()),
    }


def files() -> dict[Path, str]:
    """What `make snapshots` writes: each file with its text."""
    written = {SNAPSHOTS / f"{name}.sql": f"{sql}\n" for name, sql in statements().items()}
    schema = json.dumps(metrics_file_schema(POSTHOG_METRICS), indent=2)
    written[SHIPPED_FILE.with_suffix(".schema.json")] = f"{schema}\n"
    return {
        **written,
        DICTIONARY: dictionary_text(METRIC_TABLE),
        DBT_SOURCES: sources_text(METRIC_TABLE),
    }


def write() -> None:
    """Bring every file up to date, and delete those of statements that are no more."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for path in set(SNAPSHOTS.glob("*.sql")) - files().keys():
        path.unlink()
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
