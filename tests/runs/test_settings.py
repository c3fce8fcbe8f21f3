"""Settings are read from the environment; all problems are reported at once, without values."""

from __future__ import annotations

import base64
import runpy
from pathlib import Path

import pytest

from runs.errors import SettingsError
from runs.execution import cut_short_warning
from runs.settings import SETTINGS, Settings
from tests.paths import ROOT

PROJECT = {"GOOGLE_CLOUD_PROJECT_ID": "my-project"}


def refusal(environ: dict[str, str]) -> str:
    """The message about an environment that is refused."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(PROJECT | environ)
    return str(caught.value)


def test_every_setting_but_the_project_has_a_default() -> None:
    """A deployment has to name its project and nothing else."""
    assert Settings.from_environment(PROJECT) == Settings(
        project_id="my-project",
        posthog_dataset_id="posthog_etl",
        firebase_dataset_id="firebase_etl_prod",
        aggregated_dataset_id="posthog_aggregated",
        secret_name="bigquery-key",  # noqa: S106 - its name, not the secret
        credentials_path=None,
        location=None,
        engine="pandas",
        max_batch_events=1_000_000,
        churn_days=14,
        max_bytes_billed=None,
        max_unasked_bytes=200_000_000_000,
        events_table="events",
        posthog_sessions_table=None,
        users_table=None,
        documents_table=None,
        usd_per_tib=6.25,
        timeout_seconds=3300,
        lease_seconds=240,
        lease_wait_seconds=0,
        auth="platform",
        oidc_audience=None,
        oidc_allowed=(),
        api_key=None,
        exclude_distinct_ids=(),
        exclude_libs=(),
        exclude_emulators=False,
        exclude_bots=False,
        claude_dataset_id="ai_usage_analytics",
        anthropic_organization_id=None,
        anthropic_admin_api_key=None,
        anthropic_base_url=None,
        dog_dataset_id="dog_breeds_raw",
        dog_base_url=None,
        dog_api_endpoint="breeds",
        dog_secret_name=None,
        tmdb_base_url=None,
        tmdb_read_token=None,
        redis_host=None,
        redis_port=6380,
        redis_password=None,
        redis_tls=True,
        redis_ca_path=None,
        metrics_file=None,
        port=8080,
        sandbox_dir=Path(".sandbox"),
    )


def test_every_setting_is_read() -> None:
    """Each variable reaches its field, with its type."""
    environ = {
        "GOOGLE_CLOUD_PROJECT_ID": "example.com:my-project",
        "POSTHOG_DATASET_ID": "posthog",
        "FIREBASE_DATASET_ID": "firebase",
        "POSTHOG_AGGREGATED_DATASET_ID": "aggregated",
        "BIGQUERY_SECRET_NAME": "projects/other/secrets/key/versions/3",
        "BIGQUERY_CREDENTIALS_PATH": "/keys/key.json",
        "BIGQUERY_LOCATION": "europe-west1",
        "ENGINE": "bigquery",
        "MAX_BATCH_EVENTS": "1000",
        "CHURN_DAYS": "30",
        "MAX_BYTES_BILLED": "1000000000000",
        "MAX_UNASKED_BYTES": "5000000000",
        "EVENTS_TABLE": "example.com:other.raw.posthog-events",
        "POSTHOG_SESSIONS_TABLE": "raw.sessions",
        "USERS_TABLE": "people",
        "DOCUMENTS_TABLE": "app_events",
        "USD_PER_TIB": "7.5",
        "ETL_TIMEOUT_SECONDS": "60",
        "LEASE_SECONDS": "30",
        "LEASE_WAIT_SECONDS": "5",
        "AUTH": "oidc",
        "OIDC_AUDIENCE": "https://etl.example.com",
        "OIDC_ALLOWED": "b@p.iam.gserviceaccount.com, a@p.iam.gserviceaccount.com",
        "EXCLUDE_DISTINCT_IDS": "load test,me,,me",
        "EXCLUDE_LIBS": " posthog-python ",
        "EXCLUDE_EMULATORS": "TRUE",
        "EXCLUDE_BOTS": "1",
        "CLAUDE_DATASET_ID": "ai",
        "ANTHROPIC_ORGANIZATION_ID": "12345678-9abc-4def-8123-456789abcdef",
        "ANTHROPIC_ADMIN_API_KEY": "sk-admin",
        "ANTHROPIC_BASE_URL": "https://claude.example.com",
        "DOG_DATASET_ID": "dogs",
        "DOG_API_BASE_URL": "https://dogs.example.com/v1",
        "DOG_API_ENDPOINT": "all/breeds",
        "DOG_API_SECRET_NAME": "dog-key",
        "TMDB_BASE_URL": "https://tmdb.example.com",
        "TMDB_READ_TOKEN": "eyJ.token",
        "REDIS_HOST": "redis.example.com",
        "REDIS_PORT": "6379",
        "REDIS_PASSWORD": "pass word",
        "REDIS_TLS": "false",
        "REDIS_CA_PATH": "/ca.pem",
        "PORT": "9000",
        "METRICS_FILE": "/mounted/metrics.yaml",
        "SANDBOX_DIR": "/sandboxes/one",
    }
    with_api_key = {"AUTH": "api_key", "ETL_API_KEY": "0123456789abcdef"}  # not beside AUTH=oidc
    with_iap = {"AUTH": "iap", "IAP_AUDIENCE": "/projects/1/apps/etl"}  # not beside AUTH=oidc
    assert environ.keys() | with_api_key.keys() | with_iap.keys() == {
        setting.variable for setting in SETTINGS
    }
    assert Settings.from_environment(PROJECT | with_api_key).api_key == with_api_key["ETL_API_KEY"]
    assert Settings.from_environment(PROJECT | with_iap).iap_audience == with_iap["IAP_AUDIENCE"]
    assert Settings.from_environment(environ) == Settings(
        project_id="example.com:my-project",
        posthog_dataset_id="posthog",
        firebase_dataset_id="firebase",
        aggregated_dataset_id="aggregated",
        secret_name="projects/other/secrets/key/versions/3",  # noqa: S106 - its name
        credentials_path=Path("/keys/key.json"),
        location="europe-west1",
        engine="bigquery",
        max_batch_events=1000,
        churn_days=30,
        max_bytes_billed=1_000_000_000_000,
        max_unasked_bytes=5_000_000_000,
        events_table="example.com:other.raw.posthog-events",
        posthog_sessions_table="raw.sessions",
        users_table="people",
        documents_table="app_events",
        usd_per_tib=7.5,
        timeout_seconds=60,
        lease_seconds=30,
        lease_wait_seconds=5,
        auth="oidc",
        oidc_audience="https://etl.example.com",
        oidc_allowed=("a@p.iam.gserviceaccount.com", "b@p.iam.gserviceaccount.com"),
        exclude_distinct_ids=("load test", "me"),
        exclude_libs=("posthog-python",),
        exclude_emulators=True,
        exclude_bots=True,
        claude_dataset_id="ai",
        anthropic_organization_id="12345678-9abc-4def-8123-456789abcdef",
        anthropic_admin_api_key="sk-admin",
        anthropic_base_url="https://claude.example.com",
        dog_dataset_id="dogs",
        dog_base_url="https://dogs.example.com/v1",
        dog_api_endpoint="all/breeds",
        dog_secret_name="dog-key",  # noqa: S106 - an example
        tmdb_base_url="https://tmdb.example.com",
        tmdb_read_token="eyJ.token",  # noqa: S106 - an example
        redis_host="redis.example.com",
        redis_port=6379,
        redis_password="pass word",  # noqa: S106 - an example
        redis_tls=False,
        redis_ca_path=Path("/ca.pem"),
        port=9000,
        metrics_file=Path("/mounted/metrics.yaml"),
        sandbox_dir=Path("/sandboxes/one"),
    )


def test_the_order_of_a_list_means_nothing() -> None:
    """The same exclusions in another order are equal: they must not cause a full load."""
    one = Settings.from_environment(PROJECT | {"EXCLUDE_LIBS": "a,b"})
    assert one == Settings.from_environment(PROJECT | {"EXCLUDE_LIBS": "b,a"})


@pytest.mark.parametrize("blank", ["", " "])
def test_an_empty_variable_counts_as_unset(blank: str) -> None:
    """So a template may pass every variable, set or not."""
    names = [each.variable for each in SETTINGS if not each.required]
    environ = {name: blank for name in names if name != "BIGQUERY_SECRET_NAME"}
    assert Settings.from_environment(PROJECT | environ) == Settings.from_environment(PROJECT)


def test_an_empty_secret_name_means_the_attached_account() -> None:
    """BIGQUERY_SECRET_NAME set to empty asks for the attached service account."""
    assert Settings.from_environment(PROJECT | {"BIGQUERY_SECRET_NAME": ""}).secret_name is None


def test_the_project_is_required() -> None:
    """Without a project there is no default to fall back to."""
    with pytest.raises(SettingsError, match=r"^GOOGLE_CLOUD_PROJECT_ID must be set to a Google"):
        Settings.from_environment({})


@pytest.mark.parametrize("environ", [{}, PROJECT], ids=["unset", "set"])
def test_a_local_run_has_the_emulators_project(environ: dict[str, str]) -> None:
    """It never has the name of a real project."""
    assert Settings.from_environment(environ, local=True).project_id == "local"


def test_all_problems_are_reported_at_once() -> None:
    """One start reports everything there is to correct, in the order of the settings."""
    environ = {
        "GOOGLE_CLOUD_PROJECT_ID": "",
        "PORT": "http",
        "CHURN_DAYS": "-1",
        "AUTH": "api_key",
        "FIREBASE_DATASET_ID": "posthog_etl",
    }
    assert refusal(environ) == (
        "GOOGLE_CLOUD_PROJECT_ID must be set to a Google Cloud project id, like my-project-123;"
        " CHURN_DAYS must be set to a whole number from 1 to 3650;"
        " PORT must be set to a whole number from 1 to 65535;"
        " POSTHOG_DATASET_ID, FIREBASE_DATASET_ID, POSTHOG_AGGREGATED_DATASET_ID must all differ;"
        " AUTH=api_key needs ETL_API_KEY."
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("GOOGLE_CLOUD_PROJECT_ID", "my-project`; DROP"),
        ("GOOGLE_CLOUD_PROJECT_ID", "my.project"),
        ("POSTHOG_DATASET_ID", "posthog-etl"),
        ("FIREBASE_DATASET_ID", "firebase.events"),
        ("POSTHOG_AGGREGATED_DATASET_ID", "out`"),
        ("POSTHOG_AGGREGATED_DATASET_ID", "out\nput"),
        ("ANTHROPIC_ORGANIZATION_ID", "my organization"),
        ("ANTHROPIC_ADMIN_API_KEY", "two words"),
        ("ANTHROPIC_BASE_URL", "claude.example.com"),
        ("DOG_API_ENDPOINT", "https://dogs.example.com/breeds"),
        ("REDIS_HOST", "redis.example.com/0"),
        ("REDIS_PORT", "0"),
        ("REDIS_TLS", "maybe"),
        ("BIGQUERY_SECRET_NAME", "a/b"),
        ("BIGQUERY_SECRET_NAME", "projects/p/locations/europe/secrets/key"),
        ("BIGQUERY_CREDENTIALS_PATH", '{"type": "service_account"}'),
        ("BIGQUERY_CREDENTIALS_PATH", base64.b64encode(b'{"type": "x"}').decode()),
        ("BIGQUERY_CREDENTIALS_PATH", base64.urlsafe_b64encode(b'{"a":"\xc3\xbf?>"}').decode()),
        ("BIGQUERY_CREDENTIALS_PATH", "x" * 256),
        ("BIGQUERY_LOCATION", "US'"),
        ("ENGINE", "duckdb"),
        ("MAX_BATCH_EVENTS", "0"),
        ("MAX_BATCH_EVENTS", "2e6"),
        ("MAX_BATCH_EVENTS", "٣"),
        ("CHURN_DAYS", "0"),
        ("MAX_BYTES_BILLED", "1"),
        ("USD_PER_TIB", "nan"),
        ("USD_PER_TIB", "-1"),
        ("USD_PER_TIB", "inf"),
        ("ETL_TIMEOUT_SECONDS", "0"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_WAIT_SECONDS", "-5"),
        ("AUTH", "none"),
        ("OIDC_AUDIENCE", "two words"),
        ("OIDC_AUDIENCE", "'https://a'"),
        ("OIDC_ALLOWED", "somebody"),
        ("OIDC_ALLOWED", "*@example.com"),
        ("ETL_API_KEY", "short"),
        ("EXCLUDE_EMULATORS", "maybe"),
        ("EXCLUDE_BOTS", "yes"),
        ("PORT", "65536"),
    ],
)
def test_an_invalid_value_is_refused(variable: str, text: str) -> None:
    """The message names the variable and what it takes, and does not show the value."""
    setting = next(each for each in SETTINGS if each.variable == variable)
    message = refusal({variable: text})
    before, _, rest = message.partition(f"{variable} must be set to {setting.takes}")
    assert not before
    assert rest == "." or (setting.is_private and text not in rest)


def test_a_record_made_in_code_is_checked_too() -> None:
    """No Settings holds a name that could escape from SQL text, however it was made."""
    with pytest.raises(SettingsError, match="POSTHOG_DATASET_ID"):
        Settings(project_id="my-project", posthog_dataset_id="a`b")
    with pytest.raises(SettingsError, match="CHURN_DAYS"):
        Settings(project_id="my-project", churn_days=True)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"POSTHOG_DATASET_ID": "posthog_aggregated"}, "must all differ."),
        ({"AUTH": "oidc", "OIDC_AUDIENCE": "https://a"}, "AUTH=oidc needs OIDC_AUDIENCE and"),
        ({"AUTH": "oidc", "OIDC_ALLOWED": "a@b"}, "AUTH=oidc needs OIDC_AUDIENCE and OIDC_ALLOWED"),
        ({"AUTH": "api_key"}, "AUTH=api_key needs ETL_API_KEY."),
        ({"ETL_API_KEY": "0123456789abcdef"}, "ETL_API_KEY needs AUTH=api_key: set it, or unset"),
        ({"OIDC_AUDIENCE": "https://a"}, "OIDC_AUDIENCE and OIDC_ALLOWED need AUTH=oidc: set it,"),
        ({"OIDC_ALLOWED": "a@b"}, "OIDC_AUDIENCE and OIDC_ALLOWED need AUTH=oidc: set it,"),
        (
            {"AUTH": "api_key", "ETL_API_KEY": "0123456789abcdef", "OIDC_ALLOWED": "a@b"},
            "OIDC_AUDIENCE and OIDC_ALLOWED need AUTH=oidc: set it, or unset them.",
        ),
        (
            {"K_SERVICE": "etl", "ETL_TIMEOUT_SECONDS": "3601"},
            "ETL_TIMEOUT_SECONDS is 3601 and LEASE_WAIT_SECONDS 0, and Cloud Run ends a request",
        ),
        (
            {"K_SERVICE": "etl", "LEASE_WAIT_SECONDS": "301"},
            "ETL_TIMEOUT_SECONDS is 3300 and LEASE_WAIT_SECONDS 301, and Cloud Run ends a request",
        ),
        (
            {"LEASE_SECONDS": "19"},
            "LEASE_SECONDS is 19, so the lease is renewed every 4.75 s, and each renewal takes",
        ),
    ],
)
def test_contradictory_settings_are_refused(environ: dict[str, str], sentence: str) -> None:
    """A source is never the destination, and a check of callers has the settings it needs."""
    assert sentence in refusal(environ)


def test_a_lease_outlasts_a_publication() -> None:
    """Three minutes are left when one begins; Cloud Scheduler tries again after five."""
    seconds = Settings(project_id="my-project").lease_seconds
    assert seconds * 3 / 4 >= 180
    assert seconds < 300


def test_a_lease_in_the_sandbox_may_be_short() -> None:
    """Its renewals take milliseconds."""
    assert Settings.from_environment({"LEASE_SECONDS": "1"}, local=True).lease_seconds == 1


def test_secrets_are_not_shown() -> None:
    """Neither the record's text nor an error shows the API key."""
    key = "0123456789abcdef"
    environ = PROJECT | {"AUTH": "api_key", "ETL_API_KEY": key}
    assert key not in repr(Settings.from_environment(environ))
    assert "not a key" not in refusal({"ETL_API_KEY": "not a key", "PORT": "not a key"})


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_every_setting_explains_itself(setting: object) -> None:
    """Each has a text that says what it is for, and one that says what it takes."""
    assert getattr(setting, "help", "")
    assert getattr(setting, "takes", "")


@pytest.mark.parametrize(
    ("table", "is_refused"),
    [("posthog_aggregated.sessions", True), ("my-project.posthog_aggregated.sessions", True),
     ("other-project.posthog_aggregated.sessions", False), ("sessions", False)],
)  # fmt: skip
def test_no_source_is_in_the_destination(table: str, is_refused: bool) -> None:  # noqa: FBT001
    """A run would read what it writes; in another project the same name is another table."""
    environ = PROJECT | {"POSTHOG_SESSIONS_TABLE": table}
    if is_refused:
        assert "no source table may be in POSTHOG_AGGREGATED_DATASET_ID" in refusal(environ)
    else:
        assert Settings.from_environment(environ).posthog_sessions_table == table


@pytest.mark.parametrize(
    "table", ["a.b.c.d", "`t`", "t;", "a..b", ".t", "My-Project.d.t", "d-d.t", "d.t "[:-1] + "'"]
)
def test_an_invalid_name_of_a_table_is_refused(table: str) -> None:
    """Names of tables are written into statements as they are."""
    assert "EVENTS_TABLE must be set to" in refusal({"EVENTS_TABLE": table})


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"CLOUD_RUN_TIMEOUT_SECONDS": "300"}, "after 300 s, and ETL_TIMEOUT_SECONDS (3300)"),
        ({"CLOUD_RUN_TIMEOUT_SECONDS": "3299"}, "after 3299 s"),
        ({"CLOUD_RUN_TIMEOUT_SECONDS": "3300"}, None),
        ({"CLOUD_RUN_TIMEOUT_SECONDS": "300s"}, None),
        ({}, None),
    ],
)
def test_a_request_that_may_end_before_its_run_causes_a_warning(
    environ: dict[str, str], text: str | None
) -> None:
    """Cloud Run ends requests after 300 s by default; the run would go on without a CPU."""
    found = cut_short_warning(environ, Settings(project_id="my-project"))
    assert found is None if text is None else text in str(found)


def test_concurrency_fits_the_threads() -> None:
    """Both ways of deploying refuse more requests at a time than the service has threads."""
    threads = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["threads"]
    assert f"check CONCURRENCY '[1-{threads}]'" in (ROOT / "deploy" / "lib.sh").read_text("utf-8")
    variables = (ROOT / "deploy" / "terraform" / "module" / "variables.tf").read_text("utf-8")
    assert f"var.concurrency >= 1 && var.concurrency <= {threads}" in variables
