"""Documents in a real Redis with JSON: what counts is what Redis says that it has done."""

from __future__ import annotations

import datetime as dt
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from apis.http import ApiClient
from apis.redis_documents import RedisDocuments, RedisServer
from apis.tmdb import Changes, read_changes, tmdb_api
from apis.tmdb_to_redis import update_documents
from apis.windows import Window
from process_tmdb_changes import QualityRules, document_key, judge
from runs.errors import (
    AbortedError,
    CredentialsError,
    DestinationError,
    EtlError,
    SettingsError,
    UnavailableError,
)
from sandbox.apis.serving import Fault, serve
from sandbox.apis.tmdb import FakeTmdb, fill, movie, person
from sandbox.apis.valkey import HOST, serve_redis
from tests.apis.quick import quick
from tests.apis.test_http import stops
from tests.apis.tls import certificate, serve_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apis.outcomes import Outcomes
    from apis.tmdb import Kind

type Stored = Any  # a client whose answers are of any type

PASSWORD = "canary-password-4711"  # noqa: S105 - of a Redis on loopback
DAY = dt.date(2026, 10, 20)
RULES = QualityRules()
PAUSE = 0.01


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a Redis with JSON and a password answers."""
    with serve_redis(tmp_path_factory.mktemp("redis"), password=PASSWORD) as found:
        yield found


@pytest.fixture
def stored(port: int) -> Iterator[Any]:
    """A client of its own, of an empty Redis."""
    client = redis.Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True)
    client.flushall()
    yield client
    client.close()


def server(port: int, **fields: Any) -> RedisServer:  # noqa: ANN401 - of the record
    """How it is reached."""
    usual: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "password": PASSWORD,
        "tls": False,
        "first_pause_seconds": PAUSE,
    }
    return RedisServer(**{**usual, **fields})


@pytest.fixture
def documents(port: int) -> Iterator[RedisDocuments]:
    """The client under test."""
    with RedisDocuments(server(port)) as found:
        yield found


def value(stored: Stored, key: str) -> Any:  # noqa: ANN401 - what JSON holds
    """What Redis holds under a key."""
    found = stored.execute_command("JSON.GET", key)
    return json.loads(found) if found else None


def test_documents_are_put_and_keys_deleted(stored: Stored, documents: RedisDocuments) -> None:
    """A document replaces another whole and keeps its time to live; a key may be gone already."""
    documents.write({"a": {"n": 1, "old": True}, "b": {"n": None}}, [])
    stored.expire("a", 1000)
    outcomes = documents.write({"a": {"n": 2, "text": "Zürich ☕"}}, ["b", "never"])
    assert outcomes == {"a": None, "b": None, "never": None}
    assert value(stored, "a") == {"n": 2, "text": "Zürich ☕"}
    assert stored.ttl("a") > 900
    assert not stored.exists("b")


def test_each_command_has_its_own_outcome(stored: Stored, documents: RedisDocuments) -> None:
    """One that Redis refuses stops no other, and is told by what Redis answered."""
    stored.set("text", "no JSON")
    many = {f"key{number}": {"n": number} for number in range(1200)}
    outcomes = documents.write({**many, "text": {"n": 1}, "last": {"n": 2}}, ["key3"])
    assert {key: entries for key, entries in outcomes.items() if entries} == {
        "text": "ResponseError"
    }
    assert stored.get("text") == "no JSON"
    assert value(stored, "last") == {"n": 2}
    assert stored.dbsize() == 1201
    assert PASSWORD not in str(outcomes)


def test_a_number_that_is_none_is_null(stored: Stored, documents: RedisDocuments) -> None:
    """Redis refuses NaN: it travels as what it is, nothing."""
    assert documents.write({"a": {"n": float("nan")}}, []) == {"a": None}
    assert value(stored, "a") == {"n": None}


def test_readiness(documents: RedisDocuments, tmp_path: Path) -> None:
    """With JSON it is ready, without it is not, and nothing is written to find out."""
    documents.check_ready()
    with (
        serve_redis(tmp_path, json=False) as other,
        RedisDocuments(server(other, password=None)) as bare,
        pytest.raises(DestinationError, match=r"JSON\.SET"),
    ):
        bare.check_ready()


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_refused_password_is_an_error_of_the_settings(port: int, password: str | None) -> None:
    """Named by its setting, at once, and without its value."""
    with (
        RedisDocuments(server(port, password=password)) as other,
        pytest.raises(EtlError) as raised,
    ):
        other.check_ready()
    assert type(raised.value) is CredentialsError
    assert "REDIS_PASSWORD" in str(raised.value)


def test_a_redis_that_is_away_is_worth_trying_again() -> None:
    """Nobody listens there: an error in a moment, naming the settings to look at."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        free = listener.getsockname()[1]
    with (
        RedisDocuments(server(free)) as other,
        pytest.raises(UnavailableError, match="REDIS_HOST, REDIS_PORT and REDIS_TLS"),
    ):
        other.write({"a": {}}, [])


def test_a_connection_that_breaks_is_made_again(port: int, stored: Stored) -> None:
    """The pipeline is sent again as a whole: both commands may be repeated."""
    with RedisDocuments(server(port)) as documents:
        documents.write({"a": {"n": 1}}, [])
        stored.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert documents.write({"b": {"n": 2}}, ["a"]) == {"b": None, "a": None}
    assert value(stored, "b") == {"n": 2}


def test_a_server_that_may_soon_be_written_to_is_waited_for(port: int, stored: Stored) -> None:
    """During a fail-over a replica refuses writes until it takes over: no document fails for it."""
    stored.execute_command("REPLICAOF", HOST, "1")
    promotions = iter([None, "REPLICAOF NO ONE"])

    def check() -> None:
        if promotion := next(promotions, None):
            stored.execute_command(*promotion.split())

    try:
        with RedisDocuments(server(port, first_pause_seconds=0.1), check=check) as documents:
            assert documents.write({"a": {"n": 1}}, ["b"]) == {"a": None, "b": None}
    finally:
        stored.execute_command("REPLICAOF", "NO", "ONE")
    assert value(stored, "a") == {"n": 1}


def test_what_stops_a_run_stops_a_write() -> None:
    """Within 2 s, though Redis accepts and never answers."""
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        started = time.monotonic()
        with (
            pytest.raises(AbortedError),
            RedisDocuments(server(silent.getsockname()[1]), check=stops(0.1)) as documents,
        ):
            documents.write({"a": {}}, [])
    assert time.monotonic() - started < 2.0


def test_tls_is_checked(port: int, stored: Stored, tmp_path: Path) -> None:
    """A certificate of our own authority is trusted where it is named, and nowhere else."""
    authority, pair = certificate(tmp_path, "localhost")
    with serve_tls(pair, port) as secure:
        trusted = server(secure, host="localhost", tls=True, ca_path=authority)
        with RedisDocuments(trusted) as documents:
            assert documents.write({"a": {"n": 1}}, []) == {"a": None}
        for fields in ({"ca_path": None, "host": "localhost"}, {"ca_path": authority}):
            with (
                RedisDocuments(server(secure, tls=True, **fields)) as other,
                pytest.raises(SettingsError, match="REDIS_CA_PATH"),
            ):
                other.check_ready()
    assert value(stored, "a") == {"n": 1}


# From TMDB to Redis


@pytest.fixture
def tmdb() -> Iterator[FakeTmdb]:
    """A TMDB without data."""
    with serve(FakeTmdb()) as found:
        yield found


def bring(tmdb: FakeTmdb, documents: RedisDocuments, kind: Kind, *ids: int) -> Outcomes:
    """Bring these ids over, or all that have changed."""
    with ApiClient(quick(tmdb_api(tmdb.key or "", base_url=tmdb.url))) as client:
        changes = (
            Changes(kind=kind, ids=ids, adult=frozenset(), entries=len(ids), without_id=0)
            if ids
            else read_changes(client, kind, Window(first=DAY, last=DAY))
        )
        return update_documents(
            client,
            documents,
            changes,
            changes.ids,
            judge=lambda details: judge(details, RULES, today=DAY),
            key_of=lambda number: document_key(kind, number),
        )


def test_every_changed_id_ends_in_one_way(
    stored: Stored, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """Upserted, filtered by a named rule, gone or failed; and Redis holds what that says."""
    for number in range(1, 9):
        tmdb.put("movie", movie(number), DAY)
    assert bring(tmdb, documents, "movie").upserted == 8
    tmdb.put("movie", movie(2, popularity=0.5))
    tmdb.items["movie"].pop(3)
    tmdb.break_down(Fault(path="/3/movie/4", status=500, times=None))
    stored.delete(document_key("movie", 5))
    stored.set(document_key("movie", 5), "of another type")
    tmdb.change("movie", DAY, {"id": 6, "adult": True})
    tmdb.put("movie", movie(7, title="New Title"))
    outcomes = bring(tmdb, documents, "movie")
    assert outcomes.to_json() == {
        "upserted": 3,
        "gone": 1,
        "filtered": {"adult": 1, "unpopular": 1},
        "failed": 2,
        "failures": outcomes.to_json()["failures"],
    }
    assert outcomes.failed.keys() == {4, 5}
    assert outcomes.total == 8
    kept = {number for number in range(1, 9) if stored.exists(document_key("movie", number))}
    assert kept == {1, 4, 5, 7, 8}
    assert value(stored, document_key("movie", 7))["search_title"] == "New Title"


def test_the_sum_closes_and_a_second_time_changes_nothing(
    stored: Stored, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """For a sandbox's day of every kind; what failed is named by its id."""
    fill(tmdb, DAY, days=1)
    for kind in ("movie", "tv", "person"):
        first = bring(tmdb, documents, kind)
        held = {key: value(stored, key) for key in stored.keys("*")}
        changed = {each["id"] for each in tmdb.changes[kind][DAY] if each["id"] is not None}
        assert first.total == len(changed)
        assert len([key for key in held if f"tmdb_{kind}_" in key]) == first.upserted
        assert bring(tmdb, documents, kind).to_json() == first.to_json()
        assert {key: value(stored, key) for key in stored.keys("*")} == held


def test_an_answer_about_another_id_is_a_failure(
    stored: Stored, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """Nothing is stored under either id."""
    tmdb.items["person"][1] = person(2)
    outcomes = bring(tmdb, documents, "person", 1)
    assert outcomes.failed == {1: "TMDB answered with another id."}
    assert stored.dbsize() == 0


def test_nothing_counts_as_upserted_that_redis_has_not_done(tmdb: FakeTmdb, tmp_path: Path) -> None:
    """A Redis without JSON, or out of memory, fails every id."""
    for number in (1, 2, 3):
        tmdb.put("movie", movie(number), DAY)
    with (
        serve_redis(tmp_path, json=False) as other,
        RedisDocuments(server(other, password=None)) as bare,
    ):
        outcomes = bring(tmdb, bare, "movie")
    assert (outcomes.upserted, set(outcomes.failed)) == (0, {1, 2, 3})
