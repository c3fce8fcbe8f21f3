"""Documents in a real Redis with JSON: only what Redis confirms counts as done."""

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
from tests.apis.test_http import stop_after
from tests.apis.tls import serve_tls, write_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apis.outcomes import Outcomes
    from apis.tmdb import Kind

type RedisClient = Any  # its answers are of any type

PASSWORD = "canary-password-4711"  # noqa: S105 - of a Redis on loopback
DAY = dt.date(2026, 10, 20)
RULES = QualityRules()
PAUSE = 0.01


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis with JSON and a password."""
    with serve_redis(tmp_path_factory.mktemp("redis"), password=PASSWORD) as found:
        yield found


@pytest.fixture
def redis_client(port: int) -> Iterator[Any]:
    """A client beside the one under test; it empties Redis first."""
    client = redis.Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True)
    client.flushall()
    yield client
    client.close()


def server(port: int, **fields: Any) -> RedisServer:  # noqa: ANN401 - of the record
    """The address of the test's Redis, and how to connect, with some fields replaced."""
    defaults: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "password": PASSWORD,
        "tls": False,
        "first_pause_seconds": PAUSE,
    }
    return RedisServer(**{**defaults, **fields})


@pytest.fixture
def documents(port: int) -> Iterator[RedisDocuments]:
    """The client under test."""
    with RedisDocuments(server(port)) as found:
        yield found


def stored_document(redis_client: RedisClient, key: str) -> Any:  # noqa: ANN401 - what JSON holds
    """The document that Redis holds under a key."""
    found = redis_client.execute_command("JSON.GET", key)
    return json.loads(found) if found else None


def test_documents_are_written_and_keys_deleted(
    redis_client: RedisClient, documents: RedisDocuments
) -> None:
    """A document replaces another whole and keeps its TTL; a key may be gone already."""
    documents.write({"a": {"n": 1, "old": True}, "b": {"n": None}}, [])
    redis_client.expire("a", 1000)
    outcomes = documents.write({"a": {"n": 2, "text": "Zürich ☕"}}, ["b", "never"])
    assert outcomes == {"a": None, "b": None, "never": None}
    assert stored_document(redis_client, "a") == {"n": 2, "text": "Zürich ☕"}
    assert redis_client.ttl("a") > 900
    assert not redis_client.exists("b")


def test_each_command_has_its_own_outcome(
    redis_client: RedisClient, documents: RedisDocuments
) -> None:
    """A command that Redis refuses stops no other, and its outcome is Redis's error."""
    redis_client.set("text", "no JSON")
    many = {f"key{number}": {"n": number} for number in range(1200)}
    outcomes = documents.write({**many, "text": {"n": 1}, "last": {"n": 2}}, ["key3"])
    assert {key: error for key, error in outcomes.items() if error} == {"text": "ResponseError"}
    assert redis_client.get("text") == "no JSON"
    assert stored_document(redis_client, "last") == {"n": 2}
    assert redis_client.dbsize() == 1201
    assert PASSWORD not in str(outcomes)


def test_nan_is_stored_as_null(redis_client: RedisClient, documents: RedisDocuments) -> None:
    """Redis refuses NaN."""
    assert documents.write({"a": {"n": float("nan")}}, []) == {"a": None}
    assert stored_document(redis_client, "a") == {"n": None}


def test_redis_is_ready_only_with_json(documents: RedisDocuments, tmp_path: Path) -> None:
    """The check for that writes nothing."""
    documents.check_ready()
    with (
        serve_redis(tmp_path, json=False) as other,
        RedisDocuments(server(other, password=None)) as bare,
        pytest.raises(DestinationError, match=r"JSON\.SET"),
    ):
        bare.check_ready()


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_refused_password_is_a_credentials_error(port: int, password: str | None) -> None:
    """It is raised at once, and names the setting but not its value."""
    with (
        RedisDocuments(server(port, password=password)) as other,
        pytest.raises(EtlError) as raised,
    ):
        other.check_ready()
    assert type(raised.value) is CredentialsError
    assert "REDIS_PASSWORD" in str(raised.value)


def test_an_unreachable_redis_may_be_tried_again() -> None:
    """Nothing listens there: the error comes at once and names the settings to check."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        unused_port = listener.getsockname()[1]
    with (
        RedisDocuments(server(unused_port)) as other,
        pytest.raises(UnavailableError, match="REDIS_HOST, REDIS_PORT and REDIS_TLS"),
    ):
        other.write({"a": {}}, [])


def test_a_broken_connection_is_opened_again(port: int, redis_client: RedisClient) -> None:
    """The whole pipeline is sent again: both commands may be repeated."""
    with RedisDocuments(server(port)) as documents:
        documents.write({"a": {"n": 1}}, [])
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert documents.write({"b": {"n": 2}}, ["a"]) == {"b": None, "a": None}
    assert stored_document(redis_client, "b") == {"n": 2}


def test_a_write_waits_for_a_failover(port: int, redis_client: RedisClient) -> None:
    """A replica refuses writes until it takes over; no document fails because of that."""
    redis_client.execute_command("REPLICAOF", HOST, "1")
    promotions = iter([None, "REPLICAOF NO ONE"])

    def check() -> None:
        if promotion := next(promotions, None):
            redis_client.execute_command(*promotion.split())

    try:
        with RedisDocuments(server(port, first_pause_seconds=0.1), check=check) as documents:
            assert documents.write({"a": {"n": 1}}, ["b"]) == {"a": None, "b": None}
    finally:
        redis_client.execute_command("REPLICAOF", "NO", "ONE")
    assert stored_document(redis_client, "a") == {"n": 1}


def test_what_stops_a_run_stops_a_write() -> None:
    """Within 2 s, even if Redis accepts the connection and never answers."""
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        started = time.monotonic()
        with (
            pytest.raises(AbortedError),
            RedisDocuments(server(silent.getsockname()[1]), check=stop_after(0.1)) as documents,
        ):
            documents.write({"a": {}}, [])
    assert time.monotonic() - started < 2.0


def test_tls_certificates_are_checked(port: int, redis_client: RedisClient, tmp_path: Path) -> None:
    """One of a private authority is trusted only where the settings name it, and for its host."""
    authority, pair = write_certificate(tmp_path, "localhost")
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
    assert stored_document(redis_client, "a") == {"n": 1}


# From TMDB to Redis


@pytest.fixture
def tmdb() -> Iterator[FakeTmdb]:
    """A fake TMDB without data."""
    with serve(FakeTmdb()) as found:
        yield found


def load(tmdb: FakeTmdb, documents: RedisDocuments, kind: Kind, *ids: int) -> Outcomes:
    """Load these ids into Redis, or all that have changed."""
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


def test_every_changed_id_has_one_outcome(
    redis_client: RedisClient, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """Upserted, filtered by a named rule, gone or failed; and Redis holds what the outcomes say."""
    for number in range(1, 9):
        tmdb.put("movie", movie(number), DAY)
    assert load(tmdb, documents, "movie").upserted == 8
    tmdb.put("movie", movie(2, popularity=0.5))
    tmdb.items["movie"].pop(3)
    tmdb.break_down(Fault(path="/3/movie/4", status=500, times=None))
    redis_client.delete(document_key("movie", 5))
    redis_client.set(document_key("movie", 5), "of another type")
    tmdb.change("movie", DAY, {"id": 6, "adult": True})
    tmdb.put("movie", movie(7, title="New Title"))
    outcomes = load(tmdb, documents, "movie")
    assert outcomes.to_json() == {
        "upserted": 3,
        "gone": 1,
        "filtered": {"adult": 1, "unpopular": 1},
        "failed": 2,
        "failures": outcomes.to_json()["failures"],
    }
    assert outcomes.failed.keys() == {4, 5}
    assert outcomes.total == 8
    kept = {number for number in range(1, 9) if redis_client.exists(document_key("movie", number))}
    assert kept == {1, 4, 5, 7, 8}
    assert stored_document(redis_client, document_key("movie", 7))["search_title"] == "New Title"


def test_outcomes_add_up_and_a_second_run_changes_nothing(
    redis_client: RedisClient, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """For one day of sample data of every kind."""
    fill(tmdb, DAY, days=1)
    for kind in ("movie", "tv", "person"):
        first = load(tmdb, documents, kind)
        before = {key: stored_document(redis_client, key) for key in redis_client.keys("*")}
        changed = {each["id"] for each in tmdb.changes[kind][DAY] if each["id"] is not None}
        assert first.total == len(changed)
        assert len([key for key in before if f"tmdb_{kind}_" in key]) == first.upserted
        assert load(tmdb, documents, kind).to_json() == first.to_json()
        assert {key: stored_document(redis_client, key) for key in redis_client.keys("*")} == before


def test_an_answer_about_another_id_is_a_failure(
    redis_client: RedisClient, documents: RedisDocuments, tmdb: FakeTmdb
) -> None:
    """Nothing is stored under either id."""
    tmdb.items["person"][1] = person(2)
    outcomes = load(tmdb, documents, "person", 1)
    assert outcomes.failed == {1: "TMDB answered with another id."}
    assert redis_client.dbsize() == 0


def test_only_what_redis_confirms_counts_as_upserted(tmdb: FakeTmdb, tmp_path: Path) -> None:
    """A Redis without JSON fails every id."""
    for number in (1, 2, 3):
        tmdb.put("movie", movie(number), DAY)
    with (
        serve_redis(tmp_path, json=False) as other,
        RedisDocuments(server(other, password=None)) as bare,
    ):
        outcomes = load(tmdb, bare, "movie")
    assert (outcomes.upserted, set(outcomes.failed)) == (0, {1, 2, 3})
