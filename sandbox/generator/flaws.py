"""What goes wrong between the devices and the export: flaws of rows, late ones, repeats. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.generator.chance import some_and_one_at_least
from sandbox.generator.visits import DAY, HOUR

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NULL_UUID_SHARE = 0.003
_NULL_EVENT_SHARE = 0.000_1
_EMPTY_ID_SHARE = 0.000_5
_NULL_INGESTION_SHARE = 0.001
_MALFORMED_SHARE = 0.001
_NO_TIME_SHARE = 0.000_05
_OLD_SHARE = 0.000_1
_FUTURE_SHARE = 0.000_1
_REDELIVERED_SHARE = 0.03
_EXACT_COPY_SHARE = 0.005
# Days since 1970 of clocks that were never set, and how far ahead others are: each on few days,
# since every day is a partition.
_OLD_DAYS = (0, 10_957, 17_000)
_DAYS_AHEAD = (3, 30, 400)
_TIMESTAMP = pa.timestamp("us", tz="UTC")


def with_flaws(rng: np.random.Generator, events: pa.Table) -> pa.Table:
    """Return the rows with a few of each flaw: nulls, malformed JSON, impossible times."""
    count = events.num_rows
    if count == 0:
        return events
    text = pa.scalar(None, pa.string())
    time = pa.scalar(None, _TIMESTAMP)
    within_day = rng.integers(0, DAY, count)
    old = pa.array(rng.choice(_OLD_DAYS, count) * DAY + within_day).cast(_TIMESTAMP)
    ahead = _latest(events) // DAY * DAY + rng.choice(_DAYS_AHEAD, count) * DAY
    future = pa.array(ahead + within_day).cast(_TIMESTAMP)
    malformed = pc.utf8_slice_codeunits(events["properties"], 0, 150)
    for name, share, replacement in (
        ("uuid", _NULL_UUID_SHARE, text),
        ("event", _NULL_EVENT_SHARE, text),
        ("distinct_id", _EMPTY_ID_SHARE, pa.scalar("")),
        ("properties", _MALFORMED_SHARE, malformed),
        ("timestamp", _OLD_SHARE, old),
        ("timestamp", _FUTURE_SHARE, future),
        ("timestamp", _NO_TIME_SHARE, time),
        ("bq_ingested_timestamp", _NULL_INGESTION_SHARE, time),
    ):
        events = _replaced(events, name, some_and_one_at_least(rng, count, share), replacement)
    return events


def with_redeliveries(rng: np.random.Generator, events: pa.Table) -> pa.Table:
    """Return the rows and, after them, copies: ingested later, some changed, some exact."""
    if events.num_rows == 0:
        return events
    late = events.filter(pa.array(some_and_one_at_least(rng, events.num_rows, _REDELIVERED_SHARE)))
    exact = events.filter(pa.array(some_and_one_at_least(rng, events.num_rows, _EXACT_COPY_SHARE)))
    return pa.concat_tables([events, redelivered(rng, late), exact])


def redelivered(rng: np.random.Generator, events: pa.Table) -> pa.Table:
    """Return copies ingested 1 to 48 hours later; every other one is marked as sent again."""
    count = events.num_rows
    later = pa.array(rng.integers(HOUR, 48 * HOUR, count)).cast(pa.duration("us"))
    ingested = pc.add(events["bq_ingested_timestamp"], later)
    again = pc.replace_substring(
        events["properties"], "{", '{"$sent_again":true,', max_replacements=1
    )
    copies = _put(events, "bq_ingested_timestamp", ingested)
    return _replaced(copies, "properties", np.arange(count) % 2 == 0, again)


def ingested_on(rng: np.random.Generator, events: pa.Table, day: int) -> pa.Table:
    """Return the rows as the export delivers them in the course of the day that starts at `day`."""
    moments = day + rng.integers(0, DAY, events.num_rows)
    return _put(events, "bq_ingested_timestamp", pa.array(moments).cast(_TIMESTAMP))


def arrived(events: pa.Table, *, until: int) -> pa.Table:
    """Return the rows that the export has delivered by `until`, microseconds since 1970."""
    return before(events, "bq_ingested_timestamp", until)


def before(rows: pa.Table, column: str, until: int) -> pa.Table:
    """Return the rows whose time in `column` is null or before `until`."""
    moment = pa.scalar(until, pa.int64()).cast(_TIMESTAMP)
    return rows.filter(pc.fill_null(pc.less(rows[column], moment), fill_value=True))


def _latest(events: pa.Table) -> int:
    return int(pc.max(events["bq_ingested_timestamp"].cast(pa.int64())).as_py())


def _replaced(
    events: pa.Table, name: str, mask: NDArray[np.bool_], replacement: object
) -> pa.Table:
    return _put(events, name, pc.if_else(pa.array(mask), replacement, events[name]))


def _put(events: pa.Table, name: str, column: object) -> pa.Table:
    index = events.schema.get_field_index(name)
    return events.set_column(index, events.schema.field(name), cast("pa.ChunkedArray", column))
