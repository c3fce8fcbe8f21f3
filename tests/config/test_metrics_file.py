"""config/metrics.yaml: what it declares, and that all problems of a file are reported at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from config import metrics_file
from config.metrics_file import SHIPPED_FILE, metric_table
from runs.errors import SettingsError
from sessions.metric_declarations import AGGREGATIONS, METRIC_KEYS, RESERVED_WORDS
from sessions.metric_types import (
    Aggregation,
    Creation,
    Filter,
    Metric,
    MetricTable,
    Property,
    RollUp,
)
from sessions.metrics import POSTHOG_METRICS

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "  - {name: answers, aggregation: count, events: [answer], description: Answers.}\n"
PRICE = "properties:\n  - {name: price, names: [price, $price], type: number}\n"


def read(folder: Path, text: str) -> MetricTable:
    """The metric table that a file with this text declares."""
    file = folder / "metrics.yaml"
    file.write_text(text, "utf-8")
    metric_table.cache_clear()
    return metric_table(file)


def refusals(folder: Path, text: str) -> list[str]:
    """The lines of the error about a file with this text, without its path."""
    with pytest.raises(SettingsError) as caught:
        read(folder, text)
    lines = str(caught.value).split("\n")
    path = f"{folder / 'metrics.yaml'}:"
    assert all(line.startswith(path) for line in lines)
    return [line.removeprefix(path) for line in lines]


def declared(table: MetricTable) -> dict[str, Metric]:
    """The metrics that the file declares: all but the built-in ones."""
    built_in = {column.name for column in POSTHOG_METRICS.columns}
    return {metric.name: metric for metric in table.metrics if metric.name not in built_in}


def entry(**keys: str) -> str:
    """The text of a file with one metric; a key without a value is left out."""
    given = {"name": "answers", "aggregation": "count", "description": "Answers."} | keys
    lines = [f"{key.removesuffix('_')}: {value}" for key, value in given.items() if value]
    return "metrics:\n  - " + "\n    ".join(lines) + "\n"


def test_declared_columns_follow_scrolled() -> None:
    """In the order of the file, and before the columns of what the user created."""
    names = [column.name for column in metric_table().columns]
    start = names.index("scrolled") + 1
    assert names[start : start + 2] == ["viewed_event", "events_viewed"]
    assert names[start + 10] == "created_event"


def test_the_file_is_read_once() -> None:
    """All runs of a process share one table."""
    assert metric_table() is metric_table()
    assert SHIPPED_FILE.exists()


EVENTS = (Filter(events=("buy",)),)
EXPECTED = {
    "count": ("", Aggregation.COUNT, "INT64", None, RollUp.SUM),
    "any": ("", Aggregation.ANY, "BOOL", None, RollUp.EVER),
    "sum": ("price", Aggregation.SUM, "FLOAT64", "price", RollUp.SUM),
    "min": ("price", Aggregation.MIN, "FLOAT64", "price", RollUp.NONE),
    "max": ("price", Aggregation.MAX, "FLOAT64", "price", RollUp.MAX),
    "distinct_count": ("city", Aggregation.DISTINCT_COUNT, "INT64", "city", RollUp.MAX),
    "list": ("city", Aggregation.DISTINCT_LIST, "STRING", "city", RollUp.NONE),
    "first": ("city", Aggregation.FIRST, "STRING", "city", RollUp.FIRST),
    "last": ("price", Aggregation.LAST, "FLOAT64", "price", RollUp.LAST),
}


@pytest.mark.parametrize("word", EXPECTED)
def test_each_aggregation_becomes_a_metric(tmp_path: Path, word: str) -> None:
    """With the type that follows from the aggregation and its property, and the usual roll-up."""
    value, *expected = EXPECTED[word]
    text = PRICE + entry(name="found", aggregation=word, property=value, events="[buy]")
    metric = declared(read(tmp_path, text))["found"]
    actual = (metric.aggregation, metric.type, metric.value, metric.roll_up)
    assert actual == tuple(expected)
    assert metric.where == EVENTS


def test_every_aggregation_is_tested() -> None:
    """By the test above, and seconds_between by the quiz of the shipped file."""
    assert {*EXPECTED, "seconds_between"} == {*AGGREGATIONS}
    quiz = declared(metric_table())["quiz_seconds"]
    assert quiz.since == (Filter(events=("start_quiz",)),)
    assert quiz.where == (Filter(events=("finish_quiz",)),)


def test_a_property_can_be_declared(tmp_path: Path) -> None:
    """It follows the built-in properties, and a filter can read it."""
    text = PRICE + entry(where="{property: price}", roll_up="max")
    table = read(tmp_path, text)
    assert table.properties[-1] == Property(name="price", names=("price", "$price"), kind="number")
    metric = declared(table)["answers"]
    assert metric.where == (Filter(value="price"),)
    assert metric.roll_up is RollUp.MAX


def test_rules_for_documents_and_sessions_can_be_declared(tmp_path: Path) -> None:
    """Each rule replaces its default; the file may leave all of them out."""
    text = f"""metrics:
{GOOD}creation: {{checkins: [visit], ignored: [draft]}}
sessions: {{id_properties: [visitId], ignored_events: [push_received]}}
"""
    table = read(tmp_path, text)
    assert table.creation == Creation(checkins=("visit",), ignored=("draft",))
    assert (table.session_id_names, table.ignored_events) == (("visitId",), ("push_received",))
    text = f"metrics:\n{GOOD}creation: {{ignored: [draft]}}\n"
    assert read(tmp_path, text).creation == Creation(checkins=("checkin",), ignored=("draft",))
    table = read(tmp_path, f"metrics:\n{GOOD}")
    assert table.creation == POSTHOG_METRICS.creation == metric_table().creation
    assert table.session_id_names == POSTHOG_METRICS.session_id_names


REFUSED = {
    "a_key": (entry(evnts="[a]"), "5:5: Found the key 'evnts' in a metric: did you mean events?"),
    "an_aggregation": (entry(aggregation="cuont"), "3:18: Found 'cuont' for aggregation: did you"),
    "nothing": (entry(description="~"), "4:18: Found nothing for description: write a sentence"),
    "no_description": (entry(description=""), "2:5: The key description is missing"),
    "no_full_stop": (entry(description="Answers"), "4:18: Found 'Answers' for description"),
    "a_number": (entry(events="[1]"), "5:14: Found 1 for events: write text in quotes."),
    "a_switch": (entry(events="[yes]"), "5:14: Found True for events: write text in quotes."),
    "no_list": (entry(events="a"), "5:13: Found 'a' for events: write a list"),
    "an_empty_list": (entry(events="[]"), "5:13: Found an empty list for events"),
    "an_event_twice": (entry(events="[a, a]"), "5:17: 'a' stands twice in events: delete one."),
    "a_taken_name": (entry(name="os"), "2:11: The name os is taken"),
    "an_event_column": (entry(name="event_at"), "2:11: The name event_at is taken"),
    "an_inner_name": (entry(name="row_hash"), "2:11: The name row_hash is taken"),
    "a_word_of_sql": (entry(name="select"), "2:11: The name select is a word of SQL"),
    "an_injection": (entry(name="'x; DROP TABLE sessions'"), "2:11: Found 'x; DROP TABLE sessi"),
    "a_hidden_name": (entry(name="_run"), "2:11: Found '_run' for name: write a small letter"),
    "a_capital": (entry(name="Answers"), "2:11: Found 'Answers' for name"),
    "a_line_break": (entry(events='["a\\nb"]'), "5:14: Found 'a\\nb' for events: write text."),
    "a_persons_column": (
        entry(name="session_count"),
        "2:11: The name session_count would make a second column session_count of persons",
    ),
    "an_unknown_property": (
        entry(aggregation="last", property="citty"),
        "5:15: Found 'citty' for property: did you mean city?",
    ),
    "text_for_a_sum": (
        entry(aggregation="sum", property="city"),
        "5:15: The property city is text: sum needs a number",
    ),
    "a_number_for_a_list": (
        entry(aggregation="list", property="touch_y"),
        "5:15: The property touch_y is a number: list needs text.",
    ),
    "values_of_a_number": (
        entry(where="{property: touch_y, values: ['1']}"),
        "5:40: The property touch_y is a number: delete values.",
    ),
    "a_key_of_another": (entry(property="city"), "5:15: The aggregation count takes no key prop"),
    "no_property": (entry(aggregation="max"), "3:18: The aggregation max needs the key property"),
    "any_of_all": (entry(aggregation="any"), "3:18: The aggregation any needs events, name_con"),
    "no_end": (
        entry(aggregation="seconds_between", from_="[a]"),
        "3:18: The aggregation seconds_between needs the key to",
    ),
    "a_roll_up": (entry(roll_up="ever"), "5:14: Found 'ever' for roll_up: "),
    "no_yaml": ("metrics: [", "1:11: This is not YAML"),
    "an_empty_file": ("", "1:1: Found nothing for the file"),
    "a_loop": ("metrics: &a [*a]", "1:10: This is not YAML: an alias contains itself."),
    "a_key_twice": (f"{entry()}    name: b\n", "5:5: The key name of a metric stands twice"),
    "a_property_path": (
        "properties: [{name: price, names: ['a\"]']}]\n" + entry(),
        "1:36: Found 'a\"]' for names: write the name of a property",
    ),
    "a_property_twice": (
        "properties: [{name: town, names: [$geoip_city_name]}]\n" + entry(),
        "1:34: The property town is read from the same names as city: use that one",
    ),
    "a_taken_property": (
        "properties: [{name: city, names: [town]}]\n" + entry(),
        "1:21: The name city is taken",
    ),
    "a_key_of_creation": (
        entry() + "creation: {checkin: [visit]}",
        "5:12: Found the key 'checkin' in creation: did you mean checkins? Allowed are checkins,",
    ),
    "no_type": (entry() + "creation: {ignored: [1]}", "5:22: Found 1 for ignored: write text in"),
    "no_rules": (entry() + "creation: [visit]", "5:11: Found a list for creation: write `key:"),
    "a_type_twice": (
        entry() + "creation: {checkins: [visit], ignored: [visit]}",
        "5:41: 'visit' of ignored is one of checkins, too: delete it from one of them.",
    ),
    "an_id_property_path": (
        entry() + "sessions: {id_properties: ['a\"]']}",
        "5:28: Found 'a\"]' for id_properties: write the name of a property",
    ),
    "an_ignored_event_that_counts": (
        entry(events="[push]") + "sessions: {ignored_events: [push]}",
        "6:29: 'push' of ignored_events is an event of the column answers: delete it from one",
    ),
    "an_ignored_event_of_all": (
        entry() + "sessions: {ignored_events: [$screen]}",
        "5:29: '$screen' of ignored_events is an event of the column screen_count: delete it",
    ),
}


@pytest.mark.parametrize(("text", "error"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_file_is_refused(tmp_path: Path, text: str, error: str) -> None:
    """The error has the line and column, what was found there, and the remedy."""
    (line,) = refusals(tmp_path, text)
    assert line.startswith(error)
    assert re.search(r"[.:] ?\S", line)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """In the order of the file."""
    text = f"{entry(name='Answers', events='a')}{GOOD}{GOOD}"
    assert [line.split(" ")[0] for line in refusals(tmp_path, text)] == ["2:11:", "5:13:", "7:12:"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the setting that holds its path."""
    metric_table.cache_clear()
    with pytest.raises(SettingsError, match=r"none\.yaml of METRICS_FILE can't be read"):
        metric_table(tmp_path / "none.yaml")


def test_every_key_is_explained() -> None:
    """By a sentence; the reserved words are in upper case, as the check compares them."""
    assert all(text.endswith(".") for text in METRIC_KEYS.values())
    assert all(word.isupper() for word in (each.replace("_", "") for each in RESERVED_WORDS))


def test_the_check_of_a_file_reports_all_problems(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`make check-config` passes the shipped file, and names the problems of another."""
    assert metrics_file.main([]) == 0
    assert capsys.readouterr().out.endswith("metrics.yaml declares 10 metrics and can be used.\n")
    path = tmp_path / "metrics.yaml"
    path.write_text("metrics: [{name: select}, {name: 1}]", "utf-8")
    assert metrics_file.main([str(path)]) == 2
    errors = capsys.readouterr().err
    assert f"{path}:1:18: The name select is a word of SQL: choose another." in errors
    assert f"{path}:1:34: Found 1 for name" in errors
