"""Every input over HTTP is either parsed or refused in one sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runs.errors import RequestError
from runs.ledger_sql import LONGEST_PAGE, RunsRequest, is_run_id
from runs.request import RunRequest

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_ID = "20261121T100700_d0ff7524"
FIELDS = [*RunRequest().to_json(), "fullload", ""]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def parsed_or_none(parse: Callable[[], object]) -> object:
    """What was parsed, or None if it was refused; checks that the refusal is one sentence."""
    try:
        return parse()
    except RequestError as error:
        sentence = str(error)
        assert sentence
        assert "\n" not in sentence
        assert len(sentence) < 400
        return None


@given(st.binary(max_size=300))
@example(b"\xff\xfe[\x00")
@example(b"[" * 100_000)
@example(b"1" * 5000)
@example(b'{"limit": 1e999}')
@example(b'{"job": "\\ud800"}')
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    """Any bytes are a valid request, which can be written as JSON, or raise RequestError."""
    request = parsed_or_none(lambda: RunRequest.from_json(body))
    if isinstance(request, RunRequest):
        assert RunRequest.from_json(json.dumps(request.to_json()).encode()) == request


@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_any_values_are_a_request_or_refused(fields: dict[str, object]) -> None:
    """The fields of a request with values of any type, in any combination."""
    body = json.dumps(fields, default=str).encode()
    request = parsed_or_none(lambda: RunRequest.from_json(body))
    if isinstance(request, RunRequest):
        again = json.loads(json.dumps(request.to_json()))
        assert RunRequest.from_json(json.dumps(again).encode()) == request


texts = st.text(max_size=30) | st.from_regex(r"[0-9]{1,12}") | st.just(RUN_ID)


@given(st.dictionaries(st.sampled_from(["limit", "before", "after"]), st.lists(texts, max_size=3)))
def test_any_parameters_are_a_page_or_refused(query: dict[str, list[str]]) -> None:
    """A page has a limit within bounds and starts at the id of a run, or it is refused."""
    page = parsed_or_none(lambda: RunsRequest.from_query(query))
    if isinstance(page, RunsRequest):
        assert 1 <= page.limit <= LONGEST_PAGE
        assert page.before is None or is_run_id(page.before)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, RunsRequest(limit=20, before=None)),
        ({"limit": ["1"]}, RunsRequest(limit=1)),
        ({"limit": ["100"], "before": [RUN_ID]}, RunsRequest(limit=100, before=RUN_ID)),
    ],
    ids=["nothing", "a limit", "both"],
)
def test_the_parameters_of_a_page_are_read(query: dict[str, list[str]], page: RunsRequest) -> None:
    """The parameters reach the record, and have defaults."""
    assert RunsRequest.from_query(query) == page


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"limit": ["0"]}, "limit must be a whole number from 1 to 100"),
        ({"limit": ["101"]}, "limit must be a whole number from 1 to 100"),
        ({"limit": ["-1"]}, "limit must be"),
        ({"limit": ["\u0661"]}, "limit must be"),
        ({"limit": [""]}, "limit must be"),
        ({"limit": ["1", "2"]}, "There is no parameter 'limit' there, or it stands twice"),
        ({"before": ["yesterday"]}, "before must be the id of a run"),
        ({"before": [f"{RUN_ID}' OR TRUE"]}, "before must be the id of a run"),
        ({"page": ["2"]}, "There is no parameter 'page' there"),
    ],
    ids=str,
)
def test_invalid_parameters_of_a_page_are_refused(
    query: dict[str, list[str]], sentence: str
) -> None:
    """The sentence names the parameter."""
    with pytest.raises(RequestError, match=sentence):
        RunsRequest.from_query(query)
