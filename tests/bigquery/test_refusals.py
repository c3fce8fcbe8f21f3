"""How BigQuery's errors are told apart, and what is told of them."""

from __future__ import annotations

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound

from bigquery.refusals import ConflictError, StatementError, classified
from runs.errors import SourceError


def rejected(message: str) -> BadRequest:
    """What the client raises for a statement that BigQuery rejects."""
    return BadRequest(message, errors=[{"reason": "invalidQuery", "message": message}])


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Transaction is aborted due to concurrent update against table p:d.t.", ConflictError),
        ("Could not serialize access to table p:d.t due to concurrent update", ConflictError),
        ("Query error: Transaction is aborted due to concurrent update at [2:1]", ConflictError),
        ("Unrecognized name: concurrent_conflict_aborted at [1:8]", StatementError),
        ("Bad int64 value: a conflict", StatementError),
    ],
)
def test_a_conflict_is_reported_by_the_documented_texts_alone(
    message: str, kind: type[StatementError]
) -> None:
    """It has the code and the reason of wrong SQL; a column's name or a value makes none."""
    with pytest.raises(StatementError) as raised, classified("publish", SourceError):
        raise rejected(message)
    assert type(raised.value) is kind
    assert "Bad int64" not in str(raised.value)  # what may quote a row is not told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            NotFound("GET http://127.0.0.1:40639/bigquery/v2/x?y=z: Not found: Table t"),
            "BigQuery refused projected: Not found: Table t",
        ),
        (NotFound("Not found: Table t"), "BigQuery refused projected: Not found: Table t"),
    ],
    ids=["of a request", "of a job"],
)
def test_the_clients_own_words_are_left_out(error: GoogleAPICallError, told: str) -> None:
    """An address helps nobody: the sentence is BigQuery's."""
    with pytest.raises(SourceError) as raised, classified("projected", SourceError):
        raise error
    assert str(raised.value) == told
