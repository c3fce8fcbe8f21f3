"""What `posthog_aggregated.sessions` must contain, slowly and plainly: no engine, no pandas.

Written from the documents alone. A row is put together here; what makes a row of the source valid
stands in `oracle/rows.py`, and each column in `oracle/columns.py`, `declared.py` or `people.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from oracle.columns import event_columns
from oracle.declared import declared_columns
from oracle.ids import time_of
from oracle.people import Users, channels, read_documents
from oracle.rows import classify_rows, deduplicated, in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, MutableMapping

    from oracle.rows import Event, Exclusions
    from sessions.metric_types import MetricTable

type Row = dict[str, Any]


def expected_sessions(  # noqa: PLR0913 - the four source tables, as they are
    metric_table: MetricTable,
    events: Iterable[Row],
    users: Iterable[Row],
    documents: Iterable[Row],
    posthog_sessions: Iterable[Row],
    *,
    exclusions: Exclusions | None = None,
    bad: MutableMapping[str, int] | None = None,
    known_split: Collection[str] = (),
) -> dict[str, Row]:
    """Return the row of each session, by session id, without the columns of the run itself.

    `bad` receives how many users have no id (`users`), and how many documents no id, creator or
    creation time (`documents`): they count nowhere. `known_split`: see `classify_rows`.
    """
    people = Users(users)
    created = read_documents(metric_table.creation, documents)
    by_session = channels(posthog_sessions)
    if bad is not None:
        bad["users"] = people.bad
        bad["documents"] = created.bad
    rows: dict[str, Row] = {}
    sorting = classify_rows(metric_table, events, exclusions, known_split)
    for session_id, valid in sorting.sessions.items():
        ordered = in_order(deduplicated(valid))
        row: Row = {"session_id": session_id, "is_split": session_id in sorting.pieces}
        row |= event_columns(ordered) | declared_columns(metric_table, ordered)
        row["_days"] = _days(valid)
        row |= people.columns(row["distinct_ids"], ordered[0].at)
        row |= created.columns(row["user_id"], ordered[0].at, ordered[-1].at)
        row["channel_type"] = by_session.get(session_id)
        rows[session_id] = row
    return rows


def _days(valid: list[Event]) -> list[Row]:
    counted = Counter(time_of(row.at).date() for row in valid)
    return [{"day": day, "row_count": count} for day, count in sorted(counted.items())]
