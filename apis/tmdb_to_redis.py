"""From changed ids to documents in Redis, a batch at a time: what counts is what Redis has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apis.outcomes import Document, Filtered, Outcomes
from apis.tmdb import Gone, read_details
from runs.errors import EtlError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apis.http import ApiClient
    from apis.records import Details
    from apis.redis_documents import DryDocuments, RedisDocuments
    from apis.tmdb import Changes

type Judge = Callable[[Details], Document | Filtered]


def update_documents(
    client: ApiClient,
    redis: RedisDocuments | DryDocuments,
    changes: Changes,
    ids: Sequence[int],
    *,
    judge: Judge,
    key_of: Callable[[int], str],
) -> Outcomes:
    """How some of the changed ids end: their documents are written, or their keys deleted."""
    details = read_details(
        client, changes.kind, [each for each in ids if each not in changes.adult]
    )
    verdicts: dict[int, Document | Filtered | Gone] = {}
    outcomes = Outcomes()
    for number in ids:
        found = details.get(number)
        if found is None:
            verdicts[number] = Filtered(key=key_of(number), rule="adult")
        elif isinstance(found, EtlError):
            outcomes.failed[number] = str(found)
        elif isinstance(found, Gone):
            verdicts[number] = found
        elif found.id != number:
            outcomes.failed[number] = "TMDB answered with another id."
        else:
            verdicts[number] = judge(found)
    written = redis.write(
        {each.key: each.fields for each in verdicts.values() if isinstance(each, Document)},
        [key_of(number) for number, each in verdicts.items() if not isinstance(each, Document)],
    )
    for number, verdict in verdicts.items():
        _count(outcomes, number, verdict, refused=written[key_of(number)])
    return outcomes


def _count(
    outcomes: Outcomes, number: int, verdict: Document | Filtered | Gone, *, refused: str | None
) -> None:
    if refused is not None:
        outcomes.failed[number] = f"Redis refused its document ({refused})."
    elif isinstance(verdict, Document):
        outcomes.upserted += 1
    elif isinstance(verdict, Filtered):
        outcomes.filtered[verdict.rule] += 1
    else:
        outcomes.gone += 1
