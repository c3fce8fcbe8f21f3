"""What `GET /verify` and `GET /sessions/<id>` answer. Compares and computes nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.sessions import EXPLAIN, VERIFY
from runs.errors import AbsentError
from sessions.samples import VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bigquery.warehouse import Warehouse


def read_verification(
    warehouse: Warehouse, query: Mapping[str, Sequence[str]], now: datetime
) -> dict[str, object]:
    """What comparing so many stored sessions with the source found."""
    return VERIFY(warehouse, VerifyRequest.from_query(query, now), lambda _: None).to_json()


def read_story(warehouse: Warehouse, session_id: str) -> dict[str, object] | str:
    """What a session is made of; a sentence that says why where it is not stored."""
    try:
        return EXPLAIN(warehouse, session_id, lambda _: None).to_json()
    except AbsentError as error:
        return str(error)
