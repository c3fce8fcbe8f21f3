"""The three API keys and Redis's password appear in nothing that anybody reads."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from apis.anthropic import anthropic_api, check_organization, read_code, read_costs, read_usage
from apis.dogs import dog_api, read_breeds
from apis.http import ApiClient
from apis.redis_documents import RedisDocuments, RedisServer
from apis.tmdb import Changes, read_changes, read_details, tmdb_api
from apis.tmdb_to_redis import update_documents
from apis.windows import Window
from process_tmdb_changes import QualityRules, document_key, judge
from runs.errors import EtlError
from sandbox.apis import anthropic, dogs, tmdb
from sandbox.apis.serving import Fault, serve
from sandbox.apis.valkey import HOST, serve_redis
from tests.apis.quick import quick

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apis.http import Api
    from sandbox.apis.serving import FakeApi

DAY = dt.date(2026, 10, 20)
WINDOW = Window(first=DAY, last=DAY)
CANARY = "canary-secret-0815"


def _read_anthropic(client: ApiClient) -> None:
    check_organization(client, anthropic.ORGANIZATION)
    for report in (read_costs(client, WINDOW), read_usage(client, WINDOW)):
        list(report)
    list(read_code(client, WINDOW))


def _read_tmdb(client: ApiClient) -> None:
    changes = read_changes(client, "movie", WINDOW)
    for found in read_details(client, "movie", changes.ids or (1,)).values():
        if isinstance(found, EtlError):
            raise found


type Case = tuple[FakeApi, Callable[[str], Api], Callable[[ApiClient], object]]


def cases() -> dict[str, Case]:
    """By name: a fake API with its key, the settings of its client, and how all of it is read."""
    return {
        "anthropic": (
            anthropic.FakeAnthropic(key=CANARY),
            lambda url: anthropic_api(CANARY, base_url=url),
            _read_anthropic,
        ),
        "dogs": (
            dogs.FakeDogs(dogs.sample_breeds(150), key=CANARY),
            lambda url: dog_api(CANARY, base_url=f"{url}/v1"),
            read_breeds,
        ),
        "tmdb": (
            tmdb.FakeTmdb(key=CANARY),
            lambda url: tmdb_api(CANARY, base_url=url),
            _read_tmdb,
        ),
    }


FAULTS = [
    None,
    Fault(status=401, times=None),
    Fault(status=400, times=None),
    Fault(status=404, times=None),
    Fault(status=503, times=None),
    Fault(status=429, times=None, retry_after="0"),
    Fault(trouble="cut", times=None),
    Fault(trouble="page", times=None),
    Fault(trouble="changed", times=None, change=lambda _: {"sent": CANARY}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.trouble} {f.status}" if f else "none")
@pytest.mark.parametrize("name", cases())
def test_a_secret_is_in_a_header_and_nowhere_else(
    name: str,
    fault: Fault | None,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not in a URL, log, error, traceback or output, whatever the API does."""
    caplog.set_level(logging.DEBUG)
    fake, api_of, read = cases()[name]
    with serve(fake):
        if fault:
            fake.break_down(fault)
        api = quick(api_of(fake.url))
        output = repr(api)
        expected = pytest.raises(EtlError) if fault else contextlib.nullcontext()
        with ApiClient(api) as client, expected as raised:
            read(client)
        if raised:
            output += "".join(traceback.format_exception(raised.value))
    assert CANARY not in output + caplog.text + "".join(capsys.readouterr())
    assert "httpcore" in caplog.text  # proves that the HTTP library's logs were captured
    assert fake.requests
    assert all(CANARY in str(request.headers) for request in fake.requests)
    assert all(CANARY not in f"{request.path}{request.query}" for request in fake.requests)


@pytest.mark.parametrize("password", [CANARY, "another"], ids=["accepted", "refused"])
def test_the_password_of_redis_is_reported_nowhere(
    password: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether accepted or refused; nor is the content of a document that Redis refuses."""
    caplog.set_level(logging.DEBUG)
    server = RedisServer(host=HOST, port=0, password=CANARY, tls=False)
    output, contents = repr(server), {"a": {"text": "canary-text"}}
    with (
        serve_redis(tmp_path, password=password, json=password != CANARY) as port,
        RedisDocuments(
            RedisServer(host=HOST, port=port, password=CANARY, tls=False, first_pause_seconds=0.01)
        ) as documents,
    ):
        try:
            output += str(documents.write(contents, []))
            documents.check_ready()
        except EtlError as error:
            output += "".join(traceback.format_exception(error))
    assert CANARY not in output + caplog.text
    assert "canary-text" not in output + caplog.text


def test_the_failure_of_an_id_contains_no_secret(tmp_path: Path) -> None:
    """What a run reports of an id that failed contains neither the API key nor the password."""
    with (
        serve(tmdb.FakeTmdb(key=CANARY)) as fake,
        serve_redis(tmp_path, password=CANARY) as port,
        RedisDocuments(RedisServer(host=HOST, port=port, password=CANARY, tls=False)) as documents,
        ApiClient(quick(tmdb_api(CANARY, base_url=fake.url))) as client,
    ):
        fake.put("movie", tmdb.movie(1), DAY)
        fake.break_down(Fault(status=400, times=None, path="/3/movie/1"))
        outcomes = update_documents(
            client,
            documents,
            Changes(kind="movie", ids=(1,), adult=frozenset(), entries=1, without_id=0),
            (1,),
            judge=lambda details: judge(details, QualityRules(), today=DAY),
            key_of=lambda number: document_key("movie", number),
        )
    assert outcomes.to_json()["failed"] == 1
    assert CANARY not in str(outcomes)
