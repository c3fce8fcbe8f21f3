"""How long a day of TMDB's changes takes to be in Redis, against what the rate limit allows.

`python -m benchmarks.tmdb_day [--ids N] [--latency S] [--rate R]`: a stand-in for TMDB that takes
so long for each answer, a real Redis; the last line is JSON.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
import time
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apis.http import ApiClient
from apis.outcomes import Outcomes
from apis.redis_documents import RedisDocuments, RedisServer
from apis.tmdb import REQUESTS_A_SECOND, read_changes, tmdb_api
from apis.tmdb_to_redis import update_documents
from apis.windows import Window
from benchmarks.figures import print_json, rounded
from process_tmdb_changes import QualityRules, document_key, judge
from sandbox.apis.serving import serve
from sandbox.apis.tmdb import FakeTmdb, movie
from sandbox.apis.valkey import HOST, serve_redis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apis.records import Details

DAY = dt.date(2026, 10, 20)
BATCH = 500
TARGET = 1.3


def measure(ids: int, latency: float, rate: float) -> dict[str, Any]:
    """Seconds, requests, and the ratio to the seconds that so many requests must take."""
    with tempfile.TemporaryDirectory() as folder, serve(FakeTmdb()) as fake:
        fake.latency_seconds = latency
        for number in range(1, ids + 1):
            fake.put("movie", movie(number), DAY)
        with (
            serve_redis(Path(folder)) as port,
            RedisDocuments(RedisServer(host=HOST, port=port, tls=False)) as redis,
            ApiClient(
                tmdb_api(fake.key or "", base_url=fake.url, requests_a_second=rate)
            ) as client,
        ):
            started = time.perf_counter()
            outcomes = _update_documents(client, redis)
            seconds = time.perf_counter() - started
    allowed = len(fake.requests) / rate
    return {
        "ids": outcomes.total,
        "upserted": outcomes.upserted,
        "requests": len(fake.requests),
        "seconds": rounded(seconds),
        "allowed_seconds": rounded(allowed),
        "ratio": rounded(seconds / allowed),
        "target": TARGET,
    }


def _update_documents(client: ApiClient, redis: RedisDocuments) -> Outcomes:
    rules, outcomes = QualityRules(), Outcomes()

    def verdict(details: Details) -> Any:  # noqa: ANN401 - a document, or what keeps it out
        return judge(details, rules, today=DAY)

    changes = read_changes(client, "movie", Window(first=DAY, last=DAY))
    for ids in batched(changes.ids, BATCH, strict=False):
        outcomes.add(
            update_documents(
                client,
                redis,
                changes,
                ids,
                judge=verdict,
                key_of=lambda n: document_key("movie", n),
            )
        )
    return outcomes


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tmdb_day", description=__doc__)
    parser.add_argument("--ids", type=int, default=6000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=REQUESTS_A_SECOND)
    options = parser.parse_args(arguments)
    print_json(measure(options.ids, options.latency, options.rate))


if __name__ == "__main__":
    main(sys.argv[1:])
