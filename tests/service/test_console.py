"""The console over HTTP: who has access, what forms may do, and what pages say."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from app import create_app
from bigquery.warehouse import Warehouse
from runs.progress import IN_PROGRESS, RunInProgress
from service.console import access, session_page, sign_in
from service.console.queries import NothingYetError, Queries
from service.console.responses import STATIC
from tests.console_world import OTHER_RUN, calling, environ_of, release_lease, take_lease
from tests.paths import ROOT
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from bigquery.clients import Clients

TEMPLATES: Final = sorted((ROOT / "service" / "console" / "templates").glob("*.html"))
BROWSER: Final = {"Accept": "text/html,application/xhtml+xml"}
KEY: Final = "0123456789abcdef"
LOCKED: Final = {
    "GOOGLE_CLOUD_PROJECT_ID": "my-project",
    "BIGQUERY_CREDENTIALS_PATH": "/no/key.json",
    "AUTH": "api_key",
    "ETL_API_KEY": KEY,
}
NOON: Final = datetime.now(UTC).replace(hour=12, minute=0) - timedelta(days=1)
LONG_AGO: Final = NOON - timedelta(days=20)
FIRST_AT: Final = (LONG_AGO - timedelta(days=20)).isoformat()


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """Two sessions of yesterday, a hard-coded session id of several people, and one run."""
    second = LONG_AGO + timedelta(seconds=1)
    rows = [
        event("first", NOON),
        event("second", NOON),
        event("hard-coded", LONG_AGO, distinct_id="somebody"),
        event("hard-coded", second, distinct_id="another"),
        event("hard-coded", LONG_AGO - timedelta(days=20), distinct_id="another"),
        event("hard-coded", LONG_AGO, distinct_id="another", bq_ingested_timestamp=FIRST_AT),
    ]
    with Scenario(clients=clients) as found:
        found.arrive("posthog_events", rows)
        found.run()
        yield found


@pytest.fixture(scope="module")
def console(scenario: Scenario, sandbox_dir: Path) -> Iterator[FlaskClient]:
    """A browser's client of the service on that scenario."""
    with calling(environ_of(scenario, sandbox_dir)) as browser:
        yield browser


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A client of a service that requires a key, before any wrong key."""
    monkeypatch.setattr(sign_in, "WRONG_KEYS", access.WrongKeys())
    return create_app(LOCKED).test_client()


def token_of(answer: TestResponse) -> str:
    """The token of a page's first form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', answer.text)
    assert found
    return found[1]


def count_runs(scenario: Scenario) -> int:
    """The number of runs in the ledger."""
    return len(scenario.query("SELECT run_id FROM {d}.etl_runs"))


# Browsers and programs.


def test_browsers_get_pages_and_programs_get_json(console: FlaskClient) -> None:
    """At the same address, by their Accept header."""
    for path in ("/runs", "/nowhere"):
        page = console.get(path, headers=BROWSER)
        assert page.mimetype == "text/html"
        assert "Accept" in page.headers["Vary"]
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            answer = console.get(path, headers=headers)
            assert answer.mimetype == "application/json"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_runs_address_has_a_page_and_a_report(console: FlaskClient) -> None:
    """The page for a browser, the report for a program; for both 404 if there is no such run."""
    run_id = console.get("/runs").get_json()["runs"][0]["run_id"]
    assert console.get(f"/runs/{run_id}").get_json()["run_id"] == run_id
    assert run_id in console.get(f"/runs/{run_id}", headers=BROWSER).text
    assert console.get("/runs/no-run", headers=BROWSER).status_code == 404
    assert console.get("/runs/no-run").status_code == 404


def test_pages_load_nothing_from_elsewhere(console: FlaskClient) -> None:
    """Their content security policy is strict, and no browser may cache them."""
    headers = console.get("/runs", headers=BROWSER).headers
    policy = headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_has_anything_inline(path: Path) -> None:
    """No script, style or handler: the content security policy would block it silently."""
    text = path.read_text("utf-8")
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|\|\s*safe", text) == []
    scripts = re.findall(r"<script[^>]*>", text)
    assert all("src=" in each for each in scripts)


def test_files_may_be_cached_because_their_address_has_a_hash(console: FlaskClient) -> None:
    """A changed file gets another address, and the answer calls the file immutable."""
    text = console.get("/runs", headers=BROWSER).text
    address = re.findall(r'"(/static/console\.js\?v=([0-9a-f]{12}))"', text)[0]
    digest = hashlib.sha256((STATIC / "console.js").read_bytes()).hexdigest()
    assert digest.startswith(address[1])
    answer = console.get(address[0])
    assert "immutable" in answer.headers["Cache-Control"]
    answer.close()
    assert console.get("/static/../app.py").status_code == 404


def test_vendored_files_are_those_of_npm() -> None:
    """Each file has its recorded hash, its licence, and the version that is locked."""
    vendored = json.loads((STATIC / "vendor" / "vendored.json").read_text("utf-8"))
    lock = json.loads((ROOT / "tools" / "vendor" / "package-lock.json").read_text("utf-8"))
    for each in vendored:
        content = (STATIC / "vendor" / each["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
        assert (STATIC / "vendor" / f"{each['package']}.LICENSE").is_file()
        locked = lock["packages"][f"node_modules/{each['package']}"]
        assert (locked["version"], locked["license"]) == (each["version"], each["license"])


# Before the first run.


def test_before_the_first_run_a_page_says_what_to_do(clients: Clients, sandbox_dir: Path) -> None:
    """A page without data is no error: it leads to the first run and to what that needs."""
    with (
        Scenario(clients=clients) as empty,
        calling(environ_of(empty, sandbox_dir)) as browser,
    ):
        for path in ("/", "/explore", "/sessions", "/session?id=x", "/person?id=x"):
            answer = browser.get(path, headers=BROWSER)
            assert answer.status_code == 200, path
            assert "There is nothing to see yet" in answer.text
            assert 'href="/runs/new"' in answer.text
        assert "There is no run yet" in browser.get("/runs", headers=BROWSER).text
        health = browser.get("/health-report", headers=BROWSER).text
        assert "No run has published any session so far" in health
        assert "No row was built yet" in health


def test_a_browser_gets_an_error_as_a_page() -> None:
    """The page has the sentence of the error."""
    environ = {name: value for name, value in LOCKED.items() if "KEY" not in name[:7]}
    client = create_app(environ | {"AUTH": "platform", "ETL_API_KEY": ""}).test_client()
    page = client.get("/", headers=BROWSER)
    assert page.status_code == 500
    assert "can&#39;t be read" in page.text
    assert "The service has no credentials" in page.text


# Forms.


def test_a_form_starts_a_run(console: FlaskClient, scenario: Scenario) -> None:
    """If it has its token; the answer redirects to the page of the run."""
    token = token_of(console.get("/runs", headers=BROWSER))
    answer = console.post("/runs/new", data={"csrf_token": token}, headers=BROWSER)
    assert answer.status_code == 303
    assert console.get(answer.location, headers=BROWSER).status_code == 200
    part = console.post(
        "/runs/new", data={"csrf_token": token}, headers=BROWSER | {"HX-Request": "true"}
    )
    assert (part.status_code, part.headers["HX-Redirect"][:6]) == (204, "/runs/")
    assert count_runs(scenario) == 3


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        ({}, {}, 400),
        ({"csrf_token": "guessed"}, {}, 400),
        ({"csrf_token": "TOKEN"}, {"Origin": "https://elsewhere.example"}, 403),
        ({"csrf_token": "TOKEN"}, {"Origin": "null"}, 403),
        ({"csrf_token": "TOKEN"}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"csrf_token": "TOKEN"}, {"Sec-Fetch-Site": "same-site"}, 403),
        ({"csrf_token": "TOKEN", "start_date": "2026-02-31"}, {}, 400),
        ({"csrf_token": "TOKEN", "end_date": "2026-02-01"}, {}, 400),
        ({"csrf_token": "TOKEN", "limit": "-1"}, {}, 400),
        ({"csrf_token": "TOKEN", "limit": "9" * 5000}, {}, 400),
        ({"csrf_token": "TOKEN", "job": "nothing"}, {}, 400),
        ({"csrf_token": "TOKEN", "engine": "steam"}, {}, 400),
        ({"csrf_token": "TOKEN", "full_load": "on"}, {}, 200),
        ({"csrf_token": "TOKEN", "force": "on"}, {}, 200),
        ({"csrf_token": "TOKEN", "start_date": "2026-02-01"}, {}, 200),
    ],
)
def test_a_refused_or_unconfirmed_form_starts_no_run(
    console: FlaskClient,
    scenario: Scenario,
    data: dict[str, str],
    headers: dict[str, str],
    status: int,
) -> None:
    """Without the right token, from another origin, with invalid values, or not confirmed yet."""
    before = count_runs(scenario)
    token = token_of(console.get("/runs", headers=BROWSER))
    form = {name: token if value == "TOKEN" else value for name, value in data.items()}
    answer = console.post("/runs/new", data=form, headers=BROWSER | headers)
    assert answer.status_code == status
    assert ("Before it starts" in answer.text) == (status == 200)
    assert count_runs(scenario) == before


def test_a_forms_token_is_valid_for_one_browser(
    console: FlaskClient, sandbox_dir: Path, scenario: Scenario
) -> None:
    """A token that another browser got is refused."""
    with calling(environ_of(scenario, sandbox_dir)) as other:
        token = token_of(other.get("/runs", headers=BROWSER))
    answer = console.post("/runs/new", data={"csrf_token": token}, headers=BROWSER)
    assert answer.status_code == 400
    assert "The form is too old" in answer.text


def test_the_holder_of_the_lease_is_shown(console: FlaskClient, scenario: Scenario) -> None:
    """A start is refused; the pages name the holder and the time at which the lease expires."""
    token = token_of(console.get("/runs", headers=BROWSER))
    take_lease(scenario)
    try:
        answer = console.post("/runs/new", data={"csrf_token": token}, headers=BROWSER)
        shown = console.get("/live?more", headers=BROWSER).text
    finally:
        release_lease(scenario)
    assert answer.status_code == 409
    assert OTHER_RUN in answer.text
    assert OTHER_RUN in shown
    assert re.search(r"the lease expires at \d\d:\d\d:\d\d", shown)


def test_a_run_of_this_process_is_shown_with_its_progress(
    console: FlaskClient, scenario: Scenario
) -> None:
    """Its step, batch, events and the end of its lease; not as a run on another machine."""
    run_here = RunInProgress(
        run_id=OTHER_RUN,
        job="sessions",
        started_at=datetime.now(UTC),
        step="aggregate",
        batch=2,
        batches=5,
        events=1234,
    )
    take_lease(scenario)
    IN_PROGRESS.put(run_here)
    try:
        shown = console.get("/live?more", headers=BROWSER).text
    finally:
        IN_PROGRESS.remove(OTHER_RUN)
        release_lease(scenario)
    assert "Step <b>aggregate</b>, batch 2 of 5, 1,234 events aggregated." in shown
    assert re.search(r"Its lease expires at \d\d:\d\d:\d\d\.\d+ UTC, in \d+ (s|min)", shown)
    assert "on another machine" not in shown


def test_the_page_of_a_run_reloads_when_the_run_ends(
    console: FlaskClient, scenario: Scenario
) -> None:
    """Not while the run holds the lease; afterwards there is a report to show."""
    take_lease(scenario)
    try:
        during = console.get(f"/live?more&run={OTHER_RUN}")
    finally:
        release_lease(scenario)
    assert "HX-Refresh" not in during.headers
    assert console.get(f"/live?more&run={OTHER_RUN}").headers["HX-Refresh"] == "true"
    assert "HX-Refresh" not in console.get("/live?more").headers


# Queries.


def test_a_query_is_sent_once_between_two_runs(scenario: Scenario) -> None:
    """Its answer is cached until the next run."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="no_run")
    queries = Queries(settings, lambda: nullcontext(warehouse))
    sql = f"SELECT COUNT(*) AS n FROM {warehouse.table('sessions').sql}"
    assert not queries.ask("count", sql).is_cached
    assert queries.ask("count", sql).is_cached
    scenario.run()
    queries._looked_at = -1e9  # noqa: SLF001 - as if two seconds had passed
    assert not queries.ask("count", sql).is_cached
    take_lease(scenario)
    queries._looked_at = -1e9  # noqa: SLF001 - as if two seconds had passed
    assert not queries.ask("count", sql).is_cached
    assert not queries.ask(
        "count", sql
    ).is_cached  # nothing is cached while a run changes the table
    release_lease(scenario)
    with Scenario(clients=scenario.clients) as empty:
        empty_warehouse = Warehouse(
            clients=empty.clients, settings=empty.make_settings(), run_id="no_run"
        )
        with pytest.raises(NothingYetError):
            Queries(settings, lambda: nullcontext(empty_warehouse)).check()


def test_invalid_queries_are_refused(console: FlaskClient) -> None:
    """In a sentence that says what is possible; nothing is sent to BigQuery."""
    for query in (
        "column=nothing",
        "split=session_id",
        "kind=funnel&flag1=event_count",
        "days=0",
        "days=many",
        "first=2026-01-01&last=2025-01-01",
        "first=2026-02-31&last=2026-03-01",
        "first=9999-12-31&last=9999-12-31",
        "first=0001-01-01&last=0001-01-01",
        "step=hour",
    ):
        answer = console.get(f"/explore?{query}", headers=BROWSER)
        assert answer.status_code == 400, query
        assert "That can&#39;t be asked" in answer.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("last=0001-01-01", 400),
        ("first=9999-12-31&last=9999-12-31", 400),
        ("until=0001-01-01T00:00:00%2B23:59&after=x", 200),
        ("until=9999-12-31T23:59:59-23:59&after=x", 200),
    ],
)
def test_days_out_of_range_are_refused(console: FlaskClient, query: str, status: int) -> None:
    """No day before or after them can be computed; an impossible time in a link is ignored."""
    answer = console.get(f"/sessions?{query}", headers=BROWSER)
    assert answer.status_code == status
    assert status == 200 or "a day of this century" in answer.text


def test_an_answer_can_be_downloaded_as_csv(console: FlaskClient) -> None:
    """One row a day with a header, as a file to save."""
    answer = console.get("/explore.csv?column=sessions&days=7")
    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert answer.text.splitlines() == ["period,split,value,sessions", f"{NOON.date()},,2,2"]


def test_markup_in_an_address_is_shown_as_text(console: FlaskClient) -> None:
    """A page never contains it as HTML."""
    answer = console.get("/sessions?id=<script>alert(1)</script>", headers=BROWSER)
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text


def test_a_piece_of_a_split_id_has_its_own_events(console: FlaskClient) -> None:
    """Those of its person and day, not those of others under the same session id."""
    query = {"id": f"hard-coded/{LONG_AGO.date()}/somebody", "events": ""}
    shown = console.get("/session", query_string=query, headers=BROWSER).text
    assert re.findall(r'<li class="(?:view|ours|plain|aside)" id="event-([0-9]+)"', shown) == ["1"]
    assert "set aside" not in shown
    assert "hard-coded" in console.get("/health-report", headers=BROWSER).text
    absent = console.get("/session?id=hard-coded", headers=BROWSER)
    assert absent.status_code == 404
    assert "hard-coded is split into 3 pieces" in absent.text


def test_a_page_does_not_read_a_very_long_session(
    console: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the command line to use instead, before it reads any row."""
    monkeypatch.setattr(session_page, "MOST_ROWS", 0)
    shown = console.get("/session?id=first&events", headers=BROWSER).text
    assert "main.py --explain &#34;first&#34;" in shown
    assert 'id="event-1"' not in shown
    monkeypatch.undo()
    assert 'id="event-1"' in console.get("/session?id=first&events=few", headers=BROWSER).text
    again = console.get("/session?id=first&events=few", headers=BROWSER).text
    assert "From the cache" in again
    monkeypatch.setattr(session_page, "KEPT_ROWS", 0)
    not_cached = console.get("/session?id=first&events=few", headers=BROWSER).text
    assert "From the cache" not in not_cached
    without_click = console.get("/session?id=first", headers=BROWSER).text
    assert 'hx-trigger="load" hx-target="#story"' in without_click


# Signing in.


def sign_in_with(client: FlaskClient, key: str, **options: Any) -> TestResponse:  # noqa: ANN401 - of the client
    """Send a key to the sign-in page."""
    token = token_of(client.get("/sign-in", headers=BROWSER))
    data = {"csrf_token": token, "key": key, "next": "/health-report"}
    return client.post("/sign-in", data=data, headers=BROWSER, **options)


def test_a_browser_is_redirected_to_the_sign_in_page(locked: FlaskClient) -> None:
    """With the address that it requested; a program gets 401."""
    answer = locked.get("/explore?days=7", headers=BROWSER)
    assert (answer.status_code, answer.location) == (302, "/sign-in?next=%2Fexplore%3Fdays%3D7")
    assert locked.get("/runs").status_code == 401
    assert locked.post("/runs/new", headers=BROWSER).status_code == 401
    assert locked.get("/sign-in", headers=BROWSER).status_code == 200
    with locked.get("/static/console.css") as file:
        assert file.status_code == 200


def test_the_key_gives_a_cookie(locked: FlaskClient) -> None:
    """It signs the browser in, scripts and other sites cannot read it, and it expires."""
    answer = sign_in_with(locked, KEY)
    assert (answer.status_code, answer.location) == (303, "/health-report")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Expires=" in cookie
    assert locked.get("/config").status_code == 200
    assert locked.get("/sign-in?next=/runs", headers=BROWSER).location == "/runs"


def test_the_cookie_is_secure_behind_https(locked: FlaskClient) -> None:
    """Behind Cloud Run, which says that the browser used HTTPS; not on this machine."""
    proxied = {"headers": BROWSER | {"X-Forwarded-Proto": "https"}}
    token = token_of(locked.get("/sign-in", headers=BROWSER))
    data = {"csrf_token": token, "key": KEY}
    assert "Secure" in locked.post("/sign-in", data=data, **proxied).headers["Set-Cookie"]
    assert "Secure" not in sign_in_with(create_app(LOCKED).test_client(), KEY).headers["Set-Cookie"]


def test_the_cookie_expires(locked: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its hours it is refused, even if a page had it signed again meanwhile."""
    sign_in_with(locked, KEY)
    later = time.time() + access.SIGNED_IN_SECONDS - 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert token_of(locked.get("/nowhere", headers=BROWSER))
    assert locked.get("/config").status_code == 200
    monkeypatch.setattr(time, "time", lambda: later + 120)
    assert locked.get("/config").status_code == 401


def test_another_key_or_signing_out_ends_the_cookie(locked: FlaskClient) -> None:
    """Another key makes every cookie invalid; after signing out one has to sign in again."""
    sign_in_with(locked, KEY)
    cookie = locked.get_cookie("posthog_etl")
    assert cookie is not None
    for environ, status in ((LOCKED, 200), (LOCKED | {"ETL_API_KEY": "f" * 16}, 401)):
        other = create_app(environ).test_client()
        other.set_cookie("posthog_etl", cookie.value)
        assert other.get("/config").status_code == status
    token = token_of(locked.get("/nowhere", headers=BROWSER))
    assert locked.post("/sign-out", data={"csrf_token": token}).status_code == 303
    assert locked.get("/config").status_code == 401


def test_a_cookie_does_not_start_runs_without_a_form(locked: FlaskClient) -> None:
    """`POST /run` needs the key itself: a cookie, which browsers add themselves, is not enough."""
    sign_in_with(locked, KEY)
    assert locked.post("/run").status_code == 401


def test_keys_cant_be_guessed_quickly(locked: FlaskClient) -> None:
    """After a few wrong keys the page checks no key for a minute, not even the right one."""
    for _ in range(access.WRONG_KEYS_A_MINUTE):
        assert sign_in_with(locked, "wrong").status_code in {401, 429}
    answer = sign_in_with(locked, KEY)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert locked.get("/config", headers={"X-API-Key": KEY}).status_code == 200


def test_sign_in_redirects_only_to_this_site(locked: FlaskClient) -> None:
    """An address of another site in `next` becomes the overview."""
    for target in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere", "x\n"):
        locked.delete_cookie("posthog_etl")
        token = token_of(locked.get("/sign-in", headers=BROWSER))
        data = {"csrf_token": token, "key": KEY, "next": target}
        assert locked.post("/sign-in", data=data, headers=BROWSER).location == "/"


def test_a_key_without_a_forms_token_is_not_checked(locked: FlaskClient) -> None:
    """So no other site can sign a browser in."""
    answer = locked.post("/sign-in", data={"key": KEY}, headers=BROWSER)
    assert answer.status_code == 400
    assert locked.get("/config").status_code == 401
