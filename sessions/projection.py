"""Raw event rows to the narrow, ordered events that both engines aggregate, as SQL text. Pure.

Rules about raw rows live here: which rows count, what a property's value is, which of several
copies stays, in which order events stand, and which values need to travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runs.request import FIRST_DAY
from sessions.digests import joined_sql, row_digest_sql, row_hash_sql
from sessions.ids import session_id_sql, trimmed_sql
from sessions.metric_types import UNCHANGED_BY_REPEATS
from sessions.splitting import PIECE_LIKE_SQL, PIECE_SQL
from sessions.sql_layout import called, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessions.metric_types import Filter, Metric, MetricTable, Property, Tie
    from sessions.sources import Source

# A JSON number, with a leading + or a bare point allowed; what is no number is null.
NUMBER_PATTERN = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

# An escaped backslash or a surrogate pair, kept as group 1, or a half of a pair.
_SURROGATES = (
    r"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)

# What a row says, as texts: `texts` are the values of its declared properties.
_HASHED = (
    "session_id", "event", "distinct_id", "CAST(UNIX_MICROS(event_at) AS STRING)", "texts",
)  # fmt: skip
_ALWAYS = ("session_no", "event_no", "event_at", "event")

_BIGQUERY_TYPES = {"text": "STRING", "id": "STRING", "number": "FLOAT64", "fraction": "FLOAT64"}


def projected_columns(metric_table: MetricTable) -> dict[str, str]:
    """The columns of `project_sql`, with their types."""
    return {
        "session_id": "STRING",
        "uuid": "STRING",
        "event": "STRING",
        "distinct_id": "STRING",
        "event_at": "TIMESTAMP",
        "ingested_at": "TIMESTAMP",
        "row_hash": "STRING",
        "digest": "INT64",
        "is_split": "BOOL",
        "tied_id": "STRING",
        "reason": "STRING",
        **{item.name: _BIGQUERY_TYPES[item.kind] for item in metric_table.properties},
    }


def project_sql(
    metric_table: MetricTable,
    source: Source,
    rows: str,
    *,
    exclusions: Iterable[str] = (),
    sessions: str | None = None,
    split_ids: str | None = None,
) -> str:
    """A SELECT of `projected_columns`: a row per source row that satisfies `rows`, at @snapshot_at.

    `reason` is null for valid rows, else bad_timestamp, malformed, no_session or excluded.
    `tied_id` is what the row ties its distinct id to, unless it is excluded. `exclusions` are the
    conditions of `exclusion_sql`; ignored events are excluded, too. With `sessions`, a table of
    ids, only rows of those. Rows of `split_ids`, another one, have the id of their piece, as rows
    of ids that are spelled like pieces always have.
    """
    as_of = f"\n    {source.shape.as_of}" if source.shape.as_of else ""
    properties = metric_table.properties
    tolerance = metric_table.ingestion_tolerance_seconds * 1_000_000  # µs
    texts = _text_aliases(properties)
    ignored = metric_table.ignored_events
    of_table = [among_sql("event", ignored)] if ignored else []
    is_excluded = "\n        OR ".join([*of_table, *exclusions])
    excluded = f"\n      WHEN {is_excluded}\n        THEN 'excluded'" if is_excluded else ""
    tied_id = called("IF", [is_excluded, "NULL", "tied_id"], indent=4) if is_excluded else "tied_id"
    session_id = session_id_sql(metric_table.junk_ids, "session_id")
    wanted = f"\n  WHERE {session_id} IN (SELECT session_id FROM {sessions})" if sessions else ""
    is_known = f" OR session_id IN (SELECT session_id FROM {split_ids})" if split_ids else ""
    is_split = f"IFNULL({PIECE_LIKE_SQL}{is_known}, FALSE)"
    numbers = _number_aliases(properties)
    computed = {
        item.name: _value_sql(item, texts) for item in properties if item.kind == "fraction"
    }
    read_off = [name for name in _names(properties) if name not in computed]
    values = ",\n    ".join(computed.values())
    ids = {item.names for item in properties if item.kind == "id"}
    read = ",\n    ".join(
        _first_scalar_sql(names, name, is_id=names in ids) for names, name in texts.items()
    )
    carried = ("session_id", "uuid", "event", "distinct_id", "event_at", "ingested_at")
    identity = ("row_hash", "uuid", "CAST(UNIX_MICROS(ingested_at) AS STRING)")
    others = ("is_malformed", "is_emulator", "browser_type")
    as_text = [name for name in texts.values() if name not in numbers]
    as_numbers = ",\n    ".join(_number_sql(name) for name in numbers)
    is_json = source.shape.columns[source.physical["properties"]] == "JSON"
    raw, uuid = source.column("properties"), f"NULLIF({source.column('uuid')}, '')"
    # PostHog's exporter writes a null where a JSON column can't take the text.
    is_expected = "TRUE" if is_json else f"{trimmed_sql(raw)} IS NOT NULL"
    return f"""WITH source_rows AS (
  SELECT
    {uuid} AS uuid,
    IFNULL({source.column("event")}, '') AS event,
    {trimmed_sql(source.column("distinct_id"))} AS distinct_id,
    {source.column("event_at")} AS event_at,
    {source.time_column("ingested_at")} AS ingested_at,
    {is_expected} AS has_properties,
    IF({uuid} IS NULL, {f"TO_JSON_STRING({raw})" if is_json else raw}, NULL) AS raw_text,
    {raw if is_json else _parsed_sql(raw)} AS properties
  FROM {source.shape.table.sql}{as_of}
  WHERE {rows}
),
text_values AS (
  SELECT
    uuid, event, distinct_id, event_at, ingested_at, raw_text,
    properties IS NULL AND has_properties AS is_malformed,
    {_first_scalar_sql(metric_table.session_id_names, "session_id", is_id=True)},
    {_first_scalar_sql(("$is_emulator",), "is_emulator")},
    {_first_scalar_sql(("$browser_type",), "browser_type")},
    {_tied_ids_sql(metric_table.ties)}{read}
  FROM source_rows
),
number_values AS (
  SELECT
    {session_id} AS session_id,
    {wrapped([*carried[1:], *others, *as_text], indent=4)},
    {_tied_id_sql(metric_table.ties)},
    {joined_sql(["raw_text", *texts.values()], indent=4)} AS texts,
    {as_numbers}
  FROM text_values{wanted}
),
typed_values AS (
  SELECT
    {wrapped(carried, indent=4)},
    {row_hash_sql(_HASHED)} AS row_hash,
    {is_split} AS is_split,
    CASE
      WHEN event_at IS NULL OR event_at < TIMESTAMP '{FIRST_DAY} 00:00:00+00'
        OR TIMESTAMP_DIFF(event_at, ingested_at, MICROSECOND) > {tolerance}
        THEN 'bad_timestamp'
      WHEN is_malformed THEN 'malformed'
      WHEN session_id IS NULL THEN 'no_session'{excluded}
    END AS reason,
    {tied_id} AS tied_id,
    {wrapped(read_off, indent=4)},
    {values}
  FROM number_values
)
SELECT
  IF(is_split, {PIECE_SQL}, session_id) AS session_id,
  IFNULL(uuid, row_hash) AS uuid, event, distinct_id, event_at, ingested_at, row_hash,
  {row_digest_sql(identity)} AS digest,
  is_split, tied_id,
  {wrapped(["reason", *_names(properties)], indent=2)}
FROM typed_values"""


def ties_sql(projected: str, days: str) -> str:
    """A SELECT of (`day`, `distinct_id`, `tied_id`): what the rows of `days`, a condition, tie.

    A row needs no session for that.
    """
    return f"""SELECT DISTINCT DATE(event_at) AS day, distinct_id, tied_id
FROM {projected}
WHERE distinct_id IS NOT NULL AND tied_id IS NOT NULL
  AND (reason IS NULL OR reason = 'no_session')
  AND {days}"""


def exclusion_sql(*, distinct_ids: bool, libs: bool, emulators: bool, bots: bool) -> list[str]:
    """The conditions under which a row is `excluded`; lists travel as @excluded_* parameters."""
    conditions = {
        "IFNULL(distinct_id IN UNNEST(@excluded_distinct_ids), FALSE)": distinct_ids,
        "IFNULL(lib IN UNNEST(@excluded_libs), FALSE)": libs,
        "IFNULL(LOWER(is_emulator) IN ('true', '1'), FALSE)": emulators,
        "IFNULL(browser_type = 'bot', FALSE)": bots,
    }
    return [condition for condition, is_on in conditions.items() if is_on]


def batches_sql(metric_table: MetricTable, *, projected: str, planned: str) -> str:
    """A SELECT of the planned sessions' events: deduplicated, numbered, narrow.

    One row per (session_id, uuid): the copy with the latest ingestion (null first), then the
    latest `event_at`, then the greatest hash. `event_no` counts from 1 in the order of `event_at`,
    then uuid. Of ids only `session_no`, unique within its batch, travels on; a value travels only
    where a metric needs it (see `_travelling_sql`).
    """
    names = _names(metric_table.properties)
    columns = ("uuid", "event_at", "event", "distinct_id", *names)
    inner = wrapped(["s.batch", "s.session_no", *(f"p.{name}" for name in columns)], indent=4)
    values = ",\n  ".join(_downloaded_sql(metric_table, name) for name in ("distinct_id", *names))
    return f"""WITH copies AS (
  SELECT
    {inner},
    ROW_NUMBER() OVER (
      PARTITION BY p.session_id, p.uuid
      ORDER BY p.ingested_at DESC, p.event_at DESC, p.row_hash DESC
    ) AS copy_no
  FROM {projected} AS p
  JOIN {planned} AS s ON s.session_id = p.session_id
  WHERE p.reason IS NULL AND NOT s.is_quarantined
)
SELECT
  batch, session_no,
  ROW_NUMBER() OVER in_order AS event_no,
  event_at, event,
  {values}
FROM copies
WHERE copy_no = 1
WINDOW in_order AS (PARTITION BY batch, session_no ORDER BY event_at, uuid)"""


def downloaded_columns(metric_table: MetricTable) -> tuple[str, ...]:
    """The columns of `batches_sql` that an engine downloads."""
    return (
        *_ALWAYS,
        "distinct_id",
        *(name for name in _names(metric_table.properties) if _uses(metric_table, name)),
    )


def non_null_sql(metric_table: MetricTable, batches: str) -> str:
    """A SELECT of one row: for each property that travels, whether any event has it.

    An all-null column still costs its offsets, so it is not downloaded.
    """
    names = downloaded_properties(metric_table)
    non_null = ",\n  ".join(f"COUNT({name}) > 0 AS {name}" for name in names)
    return f"SELECT\n  {non_null}\nFROM {batches}"


def downloaded_properties(metric_table: MetricTable) -> dict[str, str]:
    """The properties among `travelling_columns`, and the distinct id, with their types."""
    types = projected_columns(metric_table)
    return {name: types[name] for name in downloaded_columns(metric_table)[len(_ALWAYS) :]}


def filter_sql(condition: Filter) -> str:
    """The filter as a condition that is never null."""
    parts = []
    if condition.events:
        parts.append(among_sql("event", condition.events))
    parts += [f"STRPOS(LOWER(event), {literal(part)}) > 0" for part in condition.event_contains]
    if condition.among:
        parts.append(f"IFNULL({among_sql(condition.value, condition.among)}, FALSE)")
    elif condition.value is not None:
        parts.append(f"{condition.value} IS NOT NULL")
    return " AND ".join(parts) or "TRUE"


def filters_sql(where: tuple[Filter, ...]) -> str:
    """Alternatives as one condition, which AND may follow; no filter at all is TRUE."""
    alternatives = [filter_sql(condition) for condition in where] or ["TRUE"]
    if len(alternatives) == 1:
        return alternatives[0]
    return f"({' OR '.join(map(_grouped, alternatives))})"


def _grouped(condition: str) -> str:
    """The condition, in brackets if it has an AND, to be clear beside OR and NOT."""
    return f"({condition})" if " AND " in condition else condition


def among_sql(name: str | None, values: tuple[str, ...]) -> str:
    """Whether a column has one of the values; null where the column is."""
    if len(values) == 1:
        return f"{name} = {literal(values[0])}"
    return f"{name} IN ({', '.join(map(literal, values))})"


def _downloaded_sql(metric_table: MetricTable, name: str) -> str:
    """A property's value where some metric needs it, else null, under its name.

    Metrics that count or sum need it on each of their events. For firsts, lasts, maxima and
    distinct values, one that repeats the session's previous event adds nothing, as long as
    the two events are alike to every filter of those metrics.
    """
    uses = _uses(metric_table, name)
    once = [metric for metric in uses if metric.aggregation in UNCHANGED_BY_REPEATS]
    needed = _each_use(uses, name)
    if once:
        where = {filters_sql(metric.where) for metric in once if _filters_more_than(metric, name)}
        marks = where | {filters_sql(metric.prefer) for metric in once if metric.prefer}
        needed = [_grouped(condition) for condition in needed]
        needed.append(f"{name} IS DISTINCT FROM LAG({name}) OVER in_order")
        needed += [f"({m}) IS DISTINCT FROM LAG({m}) OVER in_order" for m in sorted(marks)]
    if not needed:
        return name
    return called("IF", ["\n    OR ".join(needed), name, "NULL"], indent=2, name=name)


def _filters_more_than(metric: Metric, name: str) -> bool:
    return any(f.events or f.event_contains or f.value != name for f in metric.where)


def _each_use(uses: Iterable[Metric], name: str) -> list[str]:
    """The filters of the metrics that need the value on each of their events."""
    return sorted(
        {
            filters_sql(metric.where)
            for metric in uses
            if metric.aggregation not in UNCHANGED_BY_REPEATS
            or (metric.value not in {None, name} and _filters_by(metric, name))
        }
    )


def _filters_by(metric: Metric, name: str) -> bool:
    return any(f.value == name for f in (*metric.where, *metric.prefer, *metric.since))


def _uses(metric_table: MetricTable, name: str) -> list[Metric]:
    return [metric for metric in metric_table.metrics if name in metric.reads]


def _names(properties: Iterable[Property]) -> tuple[str, ...]:
    return tuple(item.name for item in properties)


def _text_aliases(properties: Iterable[Property]) -> dict[tuple[str, ...], str]:
    """Each list of property names once, under the name that its text has in `text_values`."""
    aliases: dict[tuple[str, ...], str] = {}
    for item in properties:
        aliases.setdefault(item.names, item.name)
        if item.per:
            aliases.setdefault(item.per, f"{item.name}_per")
    return aliases


def _number_aliases(properties: Sequence[Property]) -> list[str]:
    """The names in `text_values` of the texts that are read as numbers."""
    texts = _text_aliases(properties)
    numbers = (item for item in properties if item.kind in {"number", "fraction"})
    lists = (names for item in numbers for names in (item.names, item.per) if names)
    return list(dict.fromkeys(texts[names] for names in lists))


def _value_sql(item: Property, texts: Mapping[tuple[str, ...], str]) -> str:
    """A fraction of what `number_values` has, under its name."""
    value = texts[item.names]
    if item.per:
        divisor = texts[item.per]
        value = f"IEEE_DIVIDE({value}, IF({divisor} > 0, {divisor}, NULL))"
    return called("GREATEST", ["0.0", f"LEAST(1.0, {value})"], indent=4, name=item.name)


def _number_sql(text: str) -> str:
    """The text as a finite number under its own name, null where it is none."""
    number = f"SAFE_CAST({text} AS FLOAT64)"
    is_finite = f"REGEXP_CONTAINS({text}, r'{NUMBER_PATTERN}')\n      AND NOT IS_INF({number})"
    return called("IF", [is_finite, number, "NULL"], indent=4, name=text)


def _parsed_sql(text: str) -> str:
    """The text as JSON, null where it is none.

    ClickHouse accepts text that PARSE_JSON refuses, so it is repaired. An unpaired surrogate, left
    by SDKs that cut a text inside an emoji, is removed. Raw line breaks and tabs
    within texts become escaped ones, and other control characters are left out; where line breaks
    stand between values too, all of them become blanks.
    """
    escaped = text
    for raw, written in (("\\n", r"\n"), ("\\r", r"\r"), ("\\t", r"\t")):
        escaped = f"REPLACE({escaped}, '{raw}', r'{written}')"
    controls = r"r'[\x00-\x1f]'"
    mended = [
        called("REGEXP_REPLACE", [each, f"r'{_SURROGATES}'", r"r'\1'"], indent=8)
        for each in (
            called("REGEXP_REPLACE", [escaped, controls, "''"], indent=10),
            called("REGEXP_REPLACE", [text, controls, "' '"], indent=10),
        )
    ]
    mode = "wide_number_mode => 'round'"
    parsed = [called("SAFE.PARSE_JSON", [each, mode], indent=6) for each in (text, *mended)]
    return called("COALESCE", parsed, indent=4)


def _tied_ids_sql(ties: Iterable[Tie]) -> str:
    """Columns of `text_values`: what each kind of tie names, whatever the event."""
    read = (
        _first_scalar_sql(tie.names, f"tied_id_{number}", is_id=True)
        for number, tie in enumerate(ties, 1)
    )
    return "".join(f"{each},\n    " for each in read)


def _tied_id_sql(ties: Iterable[Tie]) -> str:
    """The other id of an event that ties two, under its name; null for any other event."""
    cases = "".join(
        f"\n      WHEN {among_sql('event', tie.events)} THEN tied_id_{number}"
        for number, tie in enumerate(ties, 1)
    )
    return f"CASE{cases}\n    END AS tied_id" if cases else "CAST(NULL AS STRING) AS tied_id"


def _first_scalar_sql(names: tuple[str, ...], name: str, *, is_id: bool = False) -> str:
    """The first of these properties that is a scalar and not empty, under a name."""
    values = [f"""NULLIF(JSON_VALUE(properties, '$."{each}"'), '')""" for each in names]
    value = values[0] if len(values) == 1 else called("COALESCE", values, indent=4)
    return f"{trimmed_sql(value) if is_id else value} AS {name}"


def literal(text: str) -> str:
    """The text as a literal of GoogleSQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
