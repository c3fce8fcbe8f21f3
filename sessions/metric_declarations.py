"""What a file of metrics may declare, and the columns it means. Reads no file, knows no YAML. Pure.

`config/metrics.yaml` is the file that ships. A file is refused with all of its problems at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from sessions.metric_types import (
    EVENT_COLUMNS,
    Aggregation,
    ColumnType,
    Creation,
    Filter,
    Metric,
    MetricTable,
    Property,
    RollUp,
)
from sessions.persons import daily_activity_schema, persons_schema
from sessions.projection import projected_columns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_INSERT_AFTER: Final = "scrolled"  # the column that declared ones follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value of the file with the place where it stands; lines and columns count from 1."""

    line: int
    column: int
    value: str | float | bool | None = None
    items: tuple[Node, ...] | None = None
    """Of a list."""
    pairs: tuple[tuple[Node, Node], ...] | None = None
    """Of a mapping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, as a sentence, and where."""

    line: int
    column: int
    message: str


# The words of the file for the aggregations that it offers.
AGGREGATIONS: Final[dict[str, Aggregation]] = {
    "count": Aggregation.COUNT,
    "any": Aggregation.ANY,
    "sum": Aggregation.SUM,
    "min": Aggregation.MIN,
    "max": Aggregation.MAX,
    "distinct_count": Aggregation.DISTINCT_COUNT,
    "list": Aggregation.DISTINCT_LIST,
    "first": Aggregation.FIRST,
    "last": Aggregation.LAST,
    "seconds_between": Aggregation.SECONDS_BETWEEN,
}
KINDS: Final[dict[str, Literal["text", "number", "fraction"]]] = {
    "text": "text",
    "number": "number",
    "fraction": "fraction",
}
_OF_EVENTS: Final = {"count", "any"}
_OF_NUMBERS: Final = {"sum", "min", "max"}
_OF_TEXT: Final = {"distinct_count", "list"}
_NUMBERS: Final = ("number", "fraction")
_LONGEST_SHOWN: Final = 60
_TAKES_PROPERTY: Final = "the name of a property: letters, digits, spaces and $ _ -"

_ROLL_UPS: Final[dict[str, RollUp]] = {
    "count": RollUp.SUM,
    "any": RollUp.EVER,
    "sum": RollUp.SUM,
    "min": RollUp.NONE,
    "max": RollUp.MAX,
    "distinct_count": RollUp.MAX,
    "list": RollUp.NONE,
    "first": RollUp.FIRST,
    "last": RollUp.LAST,
    "seconds_between": RollUp.SUM,
}
_PICKS: Final = {RollUp.NONE, RollUp.FIRST, RollUp.LAST, RollUp.FIRST_AND_LAST}
_ROLL_UPS_OF_TYPES: Final[dict[ColumnType, set[RollUp]]] = {
    "INT64": {RollUp.SUM, RollUp.MAX} | _PICKS,
    "FLOAT64": {RollUp.SUM, RollUp.MAX} | _PICKS,
    "BOOL": {RollUp.EVER} | _PICKS,
    "STRING": _PICKS,
}

METRIC_KEYS: Final[dict[str, str]] = {
    "name": "The column's name: small letters, digits and underscores.",
    "aggregation": "How the events of a session become one value.",
    "description": "What the column says. It goes into BigQuery.",
    "events": "Names of the events that count; without it and name_contains, all do.",
    "name_contains": "Parts that the event's name must contain, all of them, in any case.",
    "property": "The property that is aggregated.",
    "where": "Counts only events whose property has one of the values, or any value.",
    "from": "seconds_between: the events that start the clock.",
    "to": "seconds_between: the events that stop the clock.",
    "roll_up": "How sessions' values become a person's, where the default is not wanted.",
}
PROPERTY_KEYS: Final[dict[str, str]] = {
    "name": "What metrics call the property.",
    "names": "Its names in PostHog's `properties`: the first that is not empty counts.",
    "type": "text (the default), number, or fraction: a number cut to 0..1.",
}
FILTER_KEYS: Final[dict[str, str]] = {
    "property": "The property that is compared.",
    "values": "The values that count; without it, any value does.",
}
FILE_KEYS: Final[dict[str, str]] = {
    "metrics": "The columns.",
    "properties": "Properties that metrics read, besides those of every PostHog project.",
    "creation": "What Firebase's documents count as, by their type: others, and none, as events.",
    "sessions": "Which events are a session's.",
}
CREATION_KEYS: Final[dict[str, str]] = {
    "checkins": "Types that count as check-ins; without it, checkin does.",
    "ignored": "Types that count nowhere.",
}
SESSIONS_KEYS: Final[dict[str, str]] = {
    "id_properties": "The properties that a session id is read from, instead of the usual ones: "
    "the first that is not empty.",
    "ignored_events": "Names of events that neither open nor extend a session: they are excluded.",
}
NAME: Final = r"[a-z][a-z0-9_]{0,63}"
SOURCE_NAME: Final = r"[$A-Za-z_][A-Za-z0-9_$ -]{0,99}"
TEXT: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,400}"
SENTENCE: Final = TEXT.replace("{1,400}", "{1,399}") + r"\."
# GoogleSQL's reserved keywords: no column is called one of them without quotes.
RESERVED_WORDS: Final = {
    "ALL", "AND", "ANY", "ARRAY", "AS", "ASC", "ASSERT_ROWS_MODIFIED", "AT", "BETWEEN",
    "BY", "CASE", "CAST", "COLLATE", "CONTAINS", "CREATE", "CROSS", "CUBE", "CURRENT",
    "DEFAULT", "DEFINE", "DESC", "DISTINCT", "ELSE", "END", "ENUM", "ESCAPE", "EXCEPT",
    "EXCLUDE", "EXISTS", "EXTRACT", "FALSE", "FETCH", "FOLLOWING", "FOR", "FROM", "FULL",
    "GROUP", "GROUPING", "GROUPS", "HASH", "HAVING", "IF", "IGNORE", "IN", "INNER",
    "INTERSECT", "INTERVAL", "INTO", "IS", "JOIN", "LATERAL", "LEFT", "LIKE", "LIMIT",
    "LOOKUP", "MERGE", "NATURAL", "NEW", "NO", "NOT", "NULL", "NULLS", "OF", "ON", "OR",
    "ORDER", "OUTER", "OVER", "PARTITION", "PRECEDING", "PROTO", "QUALIFY", "RANGE",
    "RECURSIVE", "RESPECT", "RIGHT", "ROLLUP", "ROWS", "SELECT", "SET", "SOME", "STRUCT",
    "TABLESAMPLE", "THEN", "TO", "TREAT", "TRUE", "UNBOUNDED", "UNION", "UNNEST", "USING",
    "WHEN", "WHERE", "WINDOW", "WITH", "WITHIN",
}  # fmt: skip
_RESERVED_NAMES: Final = {"batch", "session_no", "event_no", "gap_microseconds", "values"}


def declared_table(base: MetricTable, file: Node) -> MetricTable | list[Problem]:
    """The base's columns with those of the file, or everything that is wrong with the file."""
    reader = _Reader(base)
    parts = reader.mapping(file, FILE_KEYS, ("metrics",), "the file")
    properties = [reader.declared_property(node) for node in reader.items(parts, "properties")]
    reader.properties |= {each.name: each for each in properties if each}
    metrics = [reader.declared_metric(node) for node in reader.items(parts, "metrics")]
    ruled = reader.ruled(replace(base, creation=reader.creation(parts)), parts)
    if reader.problems:
        return sorted(reader.problems, key=lambda each: (each.line, each.column))
    return _with(ruled, [m for m in metrics if m], [p for p in properties if p])


def _with(base: MetricTable, metrics: list[Metric], properties: list[Property]) -> MetricTable:
    names = [column.name for column in base.columns]
    place = names.index(_INSERT_AFTER) + 1
    return replace(
        base,
        columns=(*base.columns[:place], *metrics, *base.columns[place:]),
        properties=(*base.properties, *properties),
        declared=frozenset(metric.name for metric in metrics),
    )


class _Reader:
    """Reads the parts of a file, and notes what is wrong with them."""

    def __init__(self, base: MetricTable) -> None:
        self.problems: list[Problem] = []
        self.properties = {each.name: each for each in base.properties}
        self._base = base
        self._declared: list[Metric] = []
        self._taken = {column.name for column in base.columns}
        self._columns_taken = {*projected_columns(base), *_RESERVED_NAMES, *EVENT_COLUMNS}

    def refuse(self, node: Node, message: str) -> None:
        """Note a problem at the place of a node."""
        self.problems.append(Problem(line=node.line, column=node.column, message=message))

    def mapping(
        self, node: Node, keys: Collection[str], required: Iterable[str], what: str
    ) -> dict[str, Node]:
        """The values of a mapping by key, those that are known."""
        if node.pairs is None:
            self.refuse(node, f"Found {_shown(node)} for {what}: write `key: value` lines.")
            return {}
        found: dict[str, Node] = {}
        for key, value in node.pairs:
            name = self._key(key, keys, what)
            if name is not None and name in found:
                self.refuse(key, f"The key {name} of {what} stands twice: delete one.")
            elif name is not None:
                found[name] = value
        for name in required:
            if name not in found:
                self.refuse(node, f"The key {name} is missing in {what}: add it.")
        return found

    def _key(self, key: Node, keys: Collection[str], what: str) -> str | None:
        if isinstance(key.value, str) and key.value in keys:
            return key.value
        self.refuse(key, f"Found the key {_shown(key)} in {what}: {_allowed(key.value, keys)}")
        return None

    def items(self, parts: dict[str, Node], key: str) -> tuple[Node, ...]:
        """The items of a list; none if it is missing."""
        node = parts.get(key)
        if node is None:
            return ()
        if not node.items:
            self.refuse(node, f"Found {_shown(node)} for {key}: write a list of at least one item.")
            return ()
        return node.items

    def text(self, node: Node | None, what: str, pattern: str, takes: str) -> str | None:
        """A text of that pattern."""
        if node is None:
            return None
        if isinstance(node.value, str) and re.fullmatch(pattern, node.value):
            return node.value
        hint = " in quotes" if isinstance(node.value, bool | int | float) else ""
        self.refuse(node, f"Found {_shown(node)} for {what}: write {takes}{hint}.")
        return None

    def texts(
        self, parts: dict[str, Node], key: str, pattern: str = TEXT, takes: str = "text"
    ) -> tuple[str, ...]:
        """The texts of a list, each once."""
        found: list[str] = []
        for node in self.items(parts, key):
            text = self.text(node, key, pattern, takes)
            if text in found:
                self.refuse(node, f"{text!r} stands twice in {key}: delete one.")
            elif text is not None:
                found.append(text)
        return tuple(found)

    def choice(self, node: Node | None, what: str, allowed: Collection[str]) -> str | None:
        """One of the allowed words."""
        if node is None:
            return None
        if isinstance(node.value, str) and node.value in allowed:
            return node.value
        self.refuse(node, f"Found {_shown(node)} for {what}: {_allowed(node.value, allowed)}")
        return None

    def name(self, node: Node | None, taken: Collection[str]) -> str | None:
        """A name for a column that BigQuery accepts and nothing else has."""
        takes = "a small letter, then up to 63 small letters, digits or underscores"
        name = self.text(node, "name", NAME, takes)
        if node is None or name is None:
            return None
        if name.upper() in RESERVED_WORDS:
            self.refuse(node, f"The name {name} is a word of SQL: choose another.")
        elif name in taken:
            self.refuse(node, f"The name {name} is taken: choose another.")
        else:
            return name
        return None

    def declared_property(self, node: Node) -> Property | None:
        """An entry of `properties`."""
        parts = self.mapping(node, PROPERTY_KEYS, ("name", "names"), "a property")
        name = self.name(parts.get("name"), {*self._columns_taken, *self.properties})
        names = self.texts(parts, "names", SOURCE_NAME, _TAKES_PROPERTY)
        kind = self.choice(parts.get("type"), "type", KINDS) or "text"
        if name is None or not names:
            return None
        known = {each.names: each.name for each in self.properties.values() if not each.per}
        if names in known:
            message = f"The property {name} is read from the same names as {known[names]}"
            self.refuse(parts["names"], f"{message}: use that one, and delete this entry.")
            return None
        self._columns_taken.add(name)
        return Property(name=name, names=names, kind=KINDS[kind])

    def declared_metric(self, node: Node) -> Metric | None:
        """An entry of `metrics`."""
        parts = self.mapping(node, METRIC_KEYS, ("name", "aggregation", "description"), "a metric")
        before = len(self.problems)
        name = self.name(parts.get("name"), {*self._taken, *self._columns_taken})
        takes = "a sentence of up to 400 characters that ends with a full stop"
        description = self.text(parts.get("description"), "description", SENTENCE, takes)
        word = self.choice(parts.get("aggregation"), "aggregation", AGGREGATIONS)
        if word is None:
            return None
        self._check_keys(parts, word)
        value, kind = self._value(parts, word)
        roll_up = self._roll_up(parts, word, kind)
        condition = self._filter(parts)
        since = self.texts(parts, "from")
        until = self.texts(parts, "to")
        if name is None or description is None or len(self.problems) > before:
            return None
        where = (Filter(events=until),) if until else (condition,) if condition != Filter() else ()
        metric = Metric(
            name=name,
            aggregation=AGGREGATIONS[word],
            type=kind,
            description=description,
            value=value,
            where=where,
            since=(Filter(events=since),) if since else (),
            roll_up=roll_up,
        )
        return self._added(parts["name"], metric)

    def creation(self, parts: dict[str, Node]) -> Creation:
        """The section `creation`; what it leaves out is as it is without a section."""
        found = self.section(parts, "creation", CREATION_KEYS)
        checkins, ignored = self.texts(found, "checkins"), self.texts(found, "ignored")
        self._refuse_those(found, "ignored", dict.fromkeys(checkins, "one of checkins, too"))
        return Creation(checkins=checkins or self._base.creation.checkins, ignored=ignored)

    def ruled(self, base: MetricTable, parts: dict[str, Node]) -> MetricTable:
        """The table with the rules of the section `sessions`."""
        found = self.section(parts, "sessions", SESSIONS_KEYS)
        names = self.texts(found, "id_properties", SOURCE_NAME, _TAKES_PROPERTY)
        ignored = self.texts(found, "ignored_events")
        metrics = (*base.metrics, *self._declared)
        counted = {
            name: f"an event of the column {metric.name}"
            for metric in reversed(metrics)
            for each in (*metric.where, *metric.prefer, *metric.since)
            for name in each.events
        }
        self._refuse_those(found, "ignored_events", counted)
        names = names or base.session_id_names
        return replace(base, session_id_names=names, ignored_events=ignored)

    def section(self, parts: dict[str, Node], key: str, keys: Mapping[str, str]) -> dict[str, Node]:
        """A mapping that may be left out."""
        return self.mapping(parts[key], keys, (), key) if key in parts else {}

    def _refuse_those(self, parts: dict[str, Node], key: str, others: Mapping[str, str]) -> None:
        """Refuse the texts of a list that are something else, too."""
        node = parts.get(key)
        for each in (node and node.items) or ():
            if isinstance(each.value, str) and each.value in others:
                message = f"{each.value!r} of {key} is {others[each.value]}"
                self.refuse(each, f"{message}: delete it from one of them.")

    def _added(self, node: Node, metric: Metric) -> Metric | None:
        """The metric, if the columns it adds to persons are new, too."""
        columns = (*self._base.columns, *self._declared, metric)
        table = replace(self._base, columns=columns, properties=tuple(self.properties.values()))
        for schema in (persons_schema, daily_activity_schema):
            names = sorted(field.name for field in schema(table).fields)
            for name, other in pairwise(names):
                if name == other:
                    message = f"The name {metric.name} would make a second column {name} of persons"
                    self.refuse(node, f"{message}: choose another.")
                    return None
        self._taken.add(metric.name)
        self._declared.append(metric)
        return metric

    def _check_keys(self, parts: dict[str, Node], word: str) -> None:
        """Report keys that the aggregation does not take, and needed ones not given."""
        needed, refused = _keys_of(word)
        node = parts["aggregation"]
        for key in sorted(needed - parts.keys()):
            self.refuse(node, f"The aggregation {word} needs the key {key}: add it.")
        for key in sorted(refused & parts.keys()):
            self.refuse(parts[key], f"The aggregation {word} takes no key {key}: delete it.")
        if word == "any" and not parts.keys() & {"events", "name_contains", "where"}:
            self.refuse(node, "The aggregation any needs events, name_contains or where: add one.")

    def _value(self, parts: dict[str, Node], word: str) -> tuple[str | None, ColumnType]:
        """The property that is aggregated, and the type of the column that this makes."""
        if word in _OF_EVENTS or word == "seconds_between":
            types: dict[str, ColumnType] = {"count": "INT64", "any": "BOOL"}
            return None, types.get(word, "FLOAT64")
        node = parts.get("property")
        name = self.choice(node, "property", self._readable)
        is_number = name in self.properties and self.properties[name].kind in _NUMBERS
        if node and name and word in _OF_NUMBERS and not is_number:
            self.refuse(node, f"The property {name} is text: {word} needs a number or a fraction.")
        if node and name and word in _OF_TEXT and is_number:
            self.refuse(node, f"The property {name} is a number: {word} needs text.")
        if word == "distinct_count":
            return name, "INT64"
        return name, "FLOAT64" if is_number else "STRING"

    @property
    def _readable(self) -> list[str]:
        """What a metric may read: properties, and the event's own columns that are text."""
        return [*self.properties, *(each for each in EVENT_COLUMNS if each != "event_at")]

    def _roll_up(self, parts: dict[str, Node], word: str, kind: ColumnType) -> RollUp:
        allowed = {RollUp.NONE} if word == "list" else _ROLL_UPS_OF_TYPES[kind]
        chosen = self.choice(parts.get("roll_up"), "roll_up", sorted(allowed))
        return RollUp(chosen) if chosen else _ROLL_UPS[word]

    def _filter(self, parts: dict[str, Node]) -> Filter:
        """Which events count: all of its parts must hold."""
        where: dict[str, Node] = {}
        if "where" in parts:
            where = self.mapping(parts["where"], FILTER_KEYS, ("property",), "where")
        name = self.choice(where.get("property"), "property", self._readable)
        values = self.texts(where, "values")
        if values and name in self.properties and self.properties[name].kind in _NUMBERS:
            self.refuse(where["values"], f"The property {name} is a number: delete values.")
        return Filter(
            events=self.texts(parts, "events"),
            event_contains=tuple(each.lower() for each in self.texts(parts, "name_contains")),
            value=name,
            among=values,
        )


def _keys_of(word: str) -> tuple[set[str], set[str]]:
    """The keys that an aggregation needs, and those that it refuses."""
    if word == "seconds_between":
        return {"from", "to"}, {"events", "name_contains", "where", "property"}
    if word in _OF_EVENTS:
        return set(), {"from", "to", "property"}
    return {"property"}, {"from", "to"}


def _shown(node: Node) -> str:
    """What was found, as a person would call it."""
    if node.pairs is not None:
        return "keys with values"
    if node.items is not None:
        return "a list" if node.items else "an empty list"
    if node.value is None:
        return "nothing"
    text = repr(node.value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _allowed(found: object, allowed: Collection[str]) -> str:
    """The nearest of the allowed words, and all of them."""
    near = get_close_matches(str(found).lower(), allowed, n=1)
    meant = f"did you mean {near[0]}? Allowed" if near else "allowed"
    return f"{meant} are {', '.join(allowed)}."
