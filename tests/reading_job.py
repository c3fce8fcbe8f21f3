"""The sessions job with the metric table of another app, whose users read books."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from jobs import sessions
from jobs.sessions_checks import check_sessions
from jobs.sessions_work import begin
from sessions.metric_types import Aggregation, Metric, Property, RollUp
from tests.shipped import METRIC_TABLE

# The columns that a run names itself, and one with a threshold.
_KEPT = {
    "session_id", "distinct_id", "distinct_ids", "identified", "user_id", "user_match",
    "user_signed_up_at", "session_date", "started_at", "ended_at", "engaged_seconds",
    "event_count", "channel_type", "events_created", "checkins_created",
    "is_split", "_loaded_at", "_run_id", "_metrics_version", "_days",
}  # fmt: skip

READING = replace(
    METRIC_TABLE,
    columns=(
        *(column for column in METRIC_TABLE.columns if column.name in _KEPT),
        Metric(
            name="pages_read",
            aggregation=Aggregation.SUM,
            type="FLOAT64",
            value="pages",
            description="Pages turned.",
            roll_up=RollUp.SUM,
        ),
        Metric(
            name="chapters",
            aggregation=Aggregation.COUNTS_BY_VALUE,
            type="RECORD",
            value="chapter",
            record=(("chapter", "STRING", "chapter"), ("count", "INT64", "")),
            description="Events by chapter.",
        ),
    ),
    properties=(
        Property(name="pages", names=("pages",), kind="number"),
        Property(name="chapter", names=("chapter",)),
        Property(name="anonymous_id", names=("$anon_distinct_id",)),
    ),
    session_id_names=("reading_id",),
    engaged_gap_cap_seconds=5,
    most_session_rows=2,
    junk_ids=("a reader",),
)

JOB = replace(
    sessions.JOB,
    name="reading",
    begin=partial(begin, READING),
    check=partial(check_sessions, READING),
)
