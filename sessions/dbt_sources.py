"""The published tables as sources of a dbt project, with their tests: YAML text. Pure.

Generated from the data dictionary's records. Only the tests of dbt are defined here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sessions.data_dictionary import NEVER, null_rules, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bigquery.tables import Field, TableSchema
    from sessions.metric_types import MetricTable

_FRESH_HOURS: Final = 26  # a daily run, and two hours
_KEYS: Final = {"sessions": "session_id", "identities": "anonymous_id"}
_VALUES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("sessions", "user_match"): ("uid", "phone", "email"),
}
_LOADED_AT: Final = {"sessions": "_loaded_at", "persons": "_loaded_at"}
_HEAD: Final = """\
# The tables of posthog_aggregated for a dbt project; `make snapshots` writes it. Copy it into your
# project's models folder, and name the dataset where yours is another.
version: 2

sources:
  - name: posthog_aggregated
    description: One row per user session, and what follows from it.
    schema: posthog_aggregated
    tables:
"""


def sources_text(metric_table: MetricTable) -> str:
    """The file `docs/dbt/sources.yml`."""
    lines: list[str] = []
    for name in ("sessions", "persons", "daily_activity", "identities"):
        lines += _table(name, tables(metric_table)[name], null_rules(metric_table, name))
    return _HEAD + "\n".join(lines) + "\n"


def _table(name: str, schema: TableSchema, null: Mapping[str, str]) -> Iterator[str]:
    yield f"      - name: {name}"
    yield f"        description: {json.dumps(schema.description, ensure_ascii=False)}"
    if name in _LOADED_AT:
        yield "        config:"
        yield f"          loaded_at_field: {_LOADED_AT[name]}"
        yield "          freshness:"
        yield f"            warn_after: {{count: {_FRESH_HOURS}, period: hour}}"
    yield "        columns:"
    for field in schema.fields:
        yield from _column(name, field, null[field.name])


def _column(table: str, field: Field, null: str) -> Iterator[str]:
    yield f"          - name: {field.name}"
    yield f"            description: {json.dumps(field.description, ensure_ascii=False)}"
    type_ = "STRUCT" if field.type == "RECORD" else field.type
    yield f"            data_type: {f'ARRAY<{type_}>' if field.is_repeated else type_}"
    is_key = _KEYS.get(table) == field.name
    tests = ["unique"] if is_key else []
    tests += ["not_null"] if null.startswith(NEVER) and not field.is_repeated else []
    if tests or (table, field.name) in _VALUES:
        yield "            data_tests:"
        yield from (f"              - {test}" for test in tests)
    if values := _VALUES.get((table, field.name)):
        yield "              - accepted_values:"
        yield "                  arguments:"
        yield f"                    values: {json.dumps(values)}"
