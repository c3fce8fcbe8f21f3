"""The JSON Schema of a file of metrics, for completion in editors. It decides nothing. Pure.

What is refused, and why, is in `sessions/metric_declarations.py`; the schema is made of the same
words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessions.metric_declarations import (
    AGGREGATIONS,
    CREATION_KEYS,
    FILE_KEYS,
    FILTER_KEYS,
    KINDS,
    METRIC_KEYS,
    NAME,
    PROPERTY_KEYS,
    SENTENCE,
    SESSIONS_KEYS,
    SOURCE_NAME,
)
from sessions.metric_types import EVENT_COLUMNS, MetricTable, RollUp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def metrics_file_schema(base: MetricTable) -> dict[str, Any]:
    """A schema that accepts every valid file; it checks no combination of keys."""
    of_all = [each.name for each in base.properties]
    known = {"anyOf": [{"enum": [*of_all, *EVENT_COLUMNS]}, _text(NAME)]}
    where = {"property": known, "values": _texts()}
    metric = {
        "name": _text(NAME),
        "aggregation": {"enum": [*AGGREGATIONS]},
        "description": _text(SENTENCE),
        "property": known,
        "where": _object(where, FILTER_KEYS, ("property",)),
        "roll_up": {"enum": [each.value for each in RollUp]},
        **{key: _texts() for key in ("events", "name_contains", "from", "to")},
    }
    read = {
        "name": _text(NAME),
        "names": _list(_text(SOURCE_NAME)),
        "type": {"enum": [*KINDS]},
    }
    rules = {"id_properties": _list(_text(SOURCE_NAME)), "ignored_events": _texts()}
    file = {
        "metrics": _list(_object(metric, METRIC_KEYS, ("name", "aggregation", "description"))),
        "properties": _list(_object(read, PROPERTY_KEYS, ("name", "names"))),
        "creation": _object(dict.fromkeys(CREATION_KEYS, _texts()), CREATION_KEYS, ()),
        "sessions": _object(rules, SESSIONS_KEYS, ()),
    }
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **_object(file, FILE_KEYS, ("metrics",))}


def _object(
    values: Mapping[str, dict[str, Any]], help_texts: Mapping[str, str], required: Iterable[str]
) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [*required],
        "properties": {
            key: {"description": text, **values[key]} for key, text in help_texts.items()
        },
    }


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _texts() -> dict[str, Any]:
    return _list({"type": "string"})


def _list(items: object) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}
