"""How BigQuery's errors are classified, and what of them is quoted."""

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
def test_only_the_documented_texts_are_a_conflict(message: str, kind: type[StatementError]) -> None:
    """Code and reason are those of wrong SQL; names of columns and values are not taken for one."""
    with pytest.raises(StatementError) as raised, classified("publish", SourceError):
        raise rejected(message)
    assert type(raised.value) is kind
    assert "Bad int64" not in str(raised.value)  # a text that may quote a row is not repeated


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            NotFound("GET http://127.0.0.1:40639/bigquery/v2/x?y=z: Not found: Table t"),
            "BigQuery refused projected: Not found: Table t",
        ),
        (NotFound("Not found: Table t"), "BigQuery refused projected: Not found: Table t"),
    ],
    ids=["of a request", "of a job"],
)
def test_the_address_of_a_request_is_left_out(error: GoogleAPICallError, message: str) -> None:
    """The client puts it before BigQuery's own sentence, which alone is quoted."""
    with pytest.raises(SourceError) as raised, classified("projected", SourceError):
        raise error
    assert str(raised.value) == message
