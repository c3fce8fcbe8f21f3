"""The settings of a deployment: one typed record, read from the environment. Not a request."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from runs.errors import SettingsError
from runs.setting_kinds import (
    ADDRESS,
    DATASET,
    EMAILS,
    KEY,
    LOCATION,
    PROJECT,
    SECRET,
    TABLE,
    Kind,
    amount,
    choice,
    list_of,
    or_none,
    path_like,
    switch,
    text_like,
    whole_number,
)

type Engine = Literal["pandas", "bigquery"]
type Auth = Literal["platform", "oidc", "api_key", "iap"]

ENGINES: Final[tuple[Engine, ...]] = ("pandas", "bigquery")
AUTHS: Final[tuple[Auth, ...]] = ("platform", "oidc", "api_key", "iap")
LOCAL_PROJECT: Final = "local"
_SHORTEST_LEASE_SECONDS: Final = 20  # four renewals, each an UPDATE of one to three seconds
_LONGEST_REQUEST_SECONDS: Final = 3600  # Cloud Run answers 504 then, and takes the CPU away


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One environment variable: the field it fills, the values it takes, what it is for."""

    variable: str
    field: str
    kind: Kind
    default: object
    required: bool
    help: str
    is_private: bool = False
    """Its value is a secret, or names a project or a person: nothing shows it."""

    @property
    def takes(self) -> str:
        """The values it takes, as a phrase; no message repeats the value, it may be a secret."""
        return self.kind.takes


def _env(variable: str, kind: Kind, text: str, *, is_private: bool = False) -> dict[str, object]:
    return {"variable": variable, "kind": kind, "help": text, "is_private": is_private}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment decides; SettingsError lists everything that is wrong with it at once.

    Every field is one environment variable, named, bounded and explained in its own metadata:
    ``SETTINGS`` is this record read as a table.
    """

    project_id: str = field(
        metadata=_env(
            "GOOGLE_CLOUD_PROJECT_ID",
            PROJECT,
            "Project of the datasets, where the queries run and are paid",
            is_private=True,
        )
    )
    posthog_dataset_id: str = field(
        default="posthog_etl",
        metadata=_env("POSTHOG_DATASET_ID", DATASET, "Dataset of PostHog's batch export"),
    )
    firebase_dataset_id: str = field(
        default="firebase_etl_prod",
        metadata=_env(
            "FIREBASE_DATASET_ID", DATASET, "Dataset of the app's users and of what they created"
        ),
    )
    events_table: str = field(
        default="events",
        metadata=_env(
            "EVENTS_TABLE",
            TABLE,
            "Table of PostHog's events; its dataset is POSTHOG_DATASET_ID unless it names one",
            is_private=True,  # it may name a project
        ),
    )
    posthog_sessions_table: str | None = field(
        default=None,
        metadata=_env(
            "POSTHOG_SESSIONS_TABLE",
            or_none(TABLE),
            "Table of PostHog's sessions; unset: sessions in POSTHOG_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    users_table: str | None = field(
        default=None,
        metadata=_env(
            "USERS_TABLE",
            or_none(TABLE),
            "Table of the app's users; unset: users in FIREBASE_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    documents_table: str | None = field(
        default=None,
        metadata=_env(
            "DOCUMENTS_TABLE",
            or_none(TABLE),
            "Table of what users created; unset: events in FIREBASE_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    aggregated_dataset_id: str = field(
        default="posthog_aggregated",
        metadata=_env(
            "POSTHOG_AGGREGATED_DATASET_ID",
            DATASET,
            "Dataset that is written: created when missing, never one of the sources",
        ),
    )
    secret_name: str | None = field(
        default="bigquery-key",
        metadata=_env(
            "BIGQUERY_SECRET_NAME",
            or_none(SECRET, when_blank=True),
            "Secret that holds the service-account key; empty: the attached service account",
            is_private=True,  # it may name the project
        ),
    )
    credentials_path: Path | None = field(
        default=None,
        metadata=_env(
            "BIGQUERY_CREDENTIALS_PATH",
            or_none(path_like("the path of a service-account key file, not its content")),
            "Service-account key file, for use outside Google Cloud; goes before the secret",
            is_private=True,  # somebody may have put the key itself there
        ),
    )
    location: str | None = field(
        default=None,
        metadata=_env(
            "BIGQUERY_LOCATION",
            or_none(LOCATION),
            "Location of all datasets; unset: that of the sources",
        ),
    )
    engine: Engine = field(
        default="pandas",
        metadata=_env("ENGINE", choice(ENGINES), "What aggregates where a request does not say"),
    )
    max_batch_events: int = field(
        default=1_000_000,
        metadata=_env(
            "MAX_BATCH_EVENTS",
            whole_number(1, 100_000_000),
            "Events aggregated at a time: bounds the memory of a run, not its size",
        ),
    )
    churn_days: int = field(
        default=14,
        metadata=_env(
            "CHURN_DAYS",
            whole_number(1, 3650),
            "Days without a session that make a person churned",
        ),
    )
    max_bytes_billed: int | None = field(
        default=None,
        metadata=_env(
            "MAX_BYTES_BILLED",
            # BigQuery bills 10 MiB a query at least: below that every query would fail.
            or_none(whole_number(10 * 1024 * 1024, 2**63 - 1)),
            "Bytes that no single query may bill; unset: no limit",
        ),
    )
    max_unasked_bytes: int = field(
        default=200_000_000_000,
        metadata=_env(
            "MAX_UNASKED_BYTES",
            whole_number(0, 2**63 - 1),
            "Bytes of events that a run may read unless a full load or days were asked for",
        ),
    )
    usd_per_tib: float = field(
        default=6.25,
        metadata=_env(
            "USD_PER_TIB",
            amount("a price in US dollars, like 6.25"),
            "Price of a TiB of queries, for the cost in reports",
        ),
    )
    timeout_seconds: int = field(
        default=3300,  # Cloud Run ends a request after 3600 at most
        metadata=_env(
            "ETL_TIMEOUT_SECONDS",
            whole_number(1, 604_800),  # Cloud Run: 168 hours per job task at most
            "Seconds after which a run stops itself and publishes nothing",
        ),
    )
    lease_seconds: int = field(
        # More than a publication takes, during which nothing renews it, and less than the five
        # minutes after which Cloud Scheduler tries again.
        default=240,
        metadata=_env(
            "LEASE_SECONDS",
            whole_number(1, 3600),
            "Seconds after which the lease of a run that died is free; renewed every quarter",
        ),
    )
    lease_wait_seconds: int = field(
        default=0,
        metadata=_env(
            "LEASE_WAIT_SECONDS",
            whole_number(0, 3600),
            "Seconds to wait for another run to end, instead of refusing at once",
        ),
    )
    auth: Auth = field(
        default="platform",
        metadata=_env(
            "AUTH",
            choice(AUTHS),
            "Who checks callers: Cloud Run, or the service itself by token, key or proxy",
        ),
    )
    oidc_audience: str | None = field(
        default=None,
        metadata=_env(
            "OIDC_AUDIENCE",
            or_none(
                text_like("the audience of the tokens, as a rule the service's URL", r"[^\s'\"]+")
            ),
            "Audience that a token must be made for, with AUTH=oidc",
            is_private=True,
        ),
    )
    oidc_allowed: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "OIDC_ALLOWED",
            EMAILS,
            "Service accounts and people that may call the service, with AUTH=oidc",
            is_private=True,
        ),
    )
    api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_env(
            "ETL_API_KEY",
            or_none(text_like("at least 16 printable characters without spaces", r"[!-~]{16,}")),
            "Key that callers must send, with AUTH=api_key",
            is_private=True,
        ),
    )
    iap_audience: str | None = field(
        default=None,
        metadata=_env(
            "IAP_AUDIENCE",
            or_none(text_like("an audience, /projects/...", r"/projects/\S+")),
            "Audience that Identity-Aware Proxy signs for, with AUTH=iap",
            is_private=True,
        ),
    )
    exclude_distinct_ids: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "EXCLUDE_DISTINCT_IDS",
            list_of("distinct ids", r"(?s:.+)"),
            "Distinct ids whose events are set aside",
            is_private=True,
        ),
    )
    exclude_libs: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "EXCLUDE_LIBS",
            list_of("PostHog library names, like posthog-python", r"(?s:.+)"),
            "Libraries whose events are set aside",
        ),
    )
    exclude_emulators: bool = field(
        default=False,
        metadata=_env("EXCLUDE_EMULATORS", switch(), "Set events of emulated devices aside"),
    )
    exclude_bots: bool = field(
        default=False,
        metadata=_env("EXCLUDE_BOTS", switch(), "Set events of known bots aside"),
    )
    claude_dataset_id: str = field(
        default="ai_usage_analytics",
        metadata=_env("CLAUDE_DATASET_ID", DATASET, "claude_usage: dataset that it writes"),
    )
    anthropic_organization_id: str | None = field(
        default=None,
        metadata=_env(
            "ANTHROPIC_ORGANIZATION_ID",
            or_none(text_like("the id of an organization, a UUID", r"[0-9a-fA-F-]{36}")),
            "claude_usage: the organization that the admin key must belong to",
            is_private=True,
        ),
    )
    anthropic_admin_api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_env(
            "ANTHROPIC_ADMIN_API_KEY",
            or_none(KEY),
            "claude_usage: the admin key; unset: the secret `anthropic-admin-api-key`",
            is_private=True,
        ),
    )
    anthropic_base_url: str | None = field(
        default=None,
        metadata=_env(
            "ANTHROPIC_BASE_URL",
            or_none(ADDRESS),
            "claude_usage: another address than Anthropic's own",
            is_private=True,
        ),
    )
    dog_dataset_id: str = field(
        default="dog_breeds_raw",
        metadata=_env("DOG_DATASET_ID", DATASET, "dog_breeds: dataset that it writes"),
    )
    dog_base_url: str | None = field(
        default=None,
        metadata=_env(
            "DOG_API_BASE_URL",
            or_none(ADDRESS),
            "dog_breeds: another address than The Dog API's own",
            is_private=True,
        ),
    )
    dog_api_endpoint: str = field(
        default="breeds",
        metadata=_env(
            "DOG_API_ENDPOINT",
            text_like("a path without a host, like breeds", r"[A-Za-z0-9_/-]{1,200}"),
            "dog_breeds: what is asked for below that address",
        ),
    )
    dog_secret_name: str | None = field(
        default=None,
        metadata=_env(
            "DOG_API_SECRET_NAME",
            or_none(SECRET),
            "dog_breeds: secret that holds a key; unset: no key, which the API allows",
            is_private=True,
        ),
    )
    tmdb_base_url: str | None = field(
        default=None,
        metadata=_env(
            "TMDB_BASE_URL",
            or_none(ADDRESS),
            "tmdb_changes: another address than TMDB's own",
            is_private=True,
        ),
    )
    tmdb_read_token: str | None = field(
        default=None,
        repr=False,
        metadata=_env(
            "TMDB_READ_TOKEN",
            or_none(KEY),
            "tmdb_changes: TMDB's read access token",
            is_private=True,
        ),
    )
    redis_host: str | None = field(
        default=None,
        metadata=_env(
            "REDIS_HOST",
            or_none(text_like("a host name or address, without a port", r"[A-Za-z0-9._:-]{1,253}")),
            "tmdb_changes: the Redis that documents are written to",
            is_private=True,
        ),
    )
    redis_port: int = field(
        default=6380,
        metadata=_env("REDIS_PORT", whole_number(1, 65_535), "tmdb_changes: its port"),
    )
    redis_password: str | None = field(
        default=None,
        repr=False,
        metadata=_env(
            "REDIS_PASSWORD",
            or_none(text_like("a password in one line", r"[^\r\n\0]+")),
            "tmdb_changes: its password; unset: none",
            is_private=True,
        ),
    )
    redis_tls: bool = field(
        default=True,
        metadata=_env("REDIS_TLS", switch(), "tmdb_changes: whether it is spoken to by TLS"),
    )
    redis_ca_path: Path | None = field(
        default=None,
        metadata=_env(
            "REDIS_CA_PATH",
            or_none(path_like("the path of a file of certificates")),
            "tmdb_changes: who signed its certificate; unset: the usual authorities",
            is_private=True,
        ),
    )
    metrics_file: Path | None = field(
        default=None,
        metadata=_env(
            "METRICS_FILE",
            or_none(path_like("the path of a file of metrics")),
            "File that declares the app's own metrics; unset: config/metrics.yaml",
        ),
    )
    port: int = field(
        default=8080,
        metadata=_env("PORT", whole_number(1, 65_535), "Port the service listens on"),
    )
    sandbox_dir: Path = field(
        default=Path(".sandbox"),
        metadata=_env(
            "SANDBOX_DIR",
            path_like("the path of a directory"),
            "Where the local emulator keeps its data",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values out of bounds and contradictions, all of them in one SettingsError."""
        _check({setting.field: getattr(self, setting.field) for setting in SETTINGS})

    @property
    def exclusions(self) -> tuple[object, ...]:
        """The settings that exclude events; the published rows depend on them."""
        return (
            self.exclude_distinct_ids,
            self.exclude_libs,
            self.exclude_emulators,
            self.exclude_bots,
        )

    def missing(self, variables: Iterable[str]) -> list[str]:
        """Those of these variables that are not set."""
        values = {each.variable: getattr(self, each.field) for each in SETTINGS}
        return [name for name in variables if values[name] is None]

    def to_json(self) -> dict[str, object]:
        """Every setting by its variable, JSON-ready; of private ones only the number of values."""
        return {each.variable: _shown(each, getattr(self, each.field)) for each in SETTINGS}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, local: bool = False) -> Self:
        """Read every setting; with `local` the project is always the emulator's."""
        if local:
            environ = {**environ, "GOOGLE_CLOUD_PROJECT_ID": LOCAL_PROJECT}
        settings = cls(**{setting.field: _read(setting, environ) for setting in SETTINGS})
        problems = _misfits(settings, is_service="K_SERVICE" in environ, is_local=local)
        if problems:
            raise SettingsError(" ".join(problems))
        return settings


SETTINGS: Final[tuple[Setting, ...]] = tuple(
    Setting(
        field=each.name,
        default=None if each.default is MISSING else each.default,
        required=each.default is MISSING,
        **each.metadata,
    )
    for each in fields(Settings)
)
"""Every setting in the order of the record: the documentation is checked against this."""


# The value of a text that can't be parsed, until all problems are known.
_REFUSED: Final = object()


def _are_elsewhere(dataset: str, project: str, *tables: str | None) -> bool:
    """Whether none of these tables is in the destination dataset, which a run rewrites."""
    own = {dataset, f"{project}.{dataset}"}
    return not any(table and table.rpartition(".")[0] in own for table in tables)


# Each rule: the fields it is about, whether their values agree, and the sentence if not.
_RULES: Final[tuple[tuple[tuple[str, ...], Callable[..., object], str], ...]] = (
    (
        ("posthog_dataset_id", "firebase_dataset_id", "aggregated_dataset_id"),
        lambda *datasets: len(set(datasets)) == len(datasets),
        # Two of them have a table `events`, two a table `sessions`.
        "POSTHOG_DATASET_ID, FIREBASE_DATASET_ID, POSTHOG_AGGREGATED_DATASET_ID must all differ",
    ),
    (
        (
            "aggregated_dataset_id",
            "project_id",
            "events_table",
            "posthog_sessions_table",
            "users_table",
            "documents_table",
        ),
        _are_elsewhere,
        "no source table may be in POSTHOG_AGGREGATED_DATASET_ID, which is written",
    ),
    (
        ("auth", "oidc_audience", "oidc_allowed"),
        lambda auth, audience, allowed: auth != "oidc" or (audience and allowed),
        "AUTH=oidc needs OIDC_AUDIENCE and OIDC_ALLOWED",
    ),
    (
        ("auth", "api_key"),
        lambda auth, api_key: auth != "api_key" or api_key,
        "AUTH=api_key needs ETL_API_KEY",
    ),
    (
        ("auth", "iap_audience"),
        lambda auth, audience: auth != "iap" or audience,
        "AUTH=iap needs IAP_AUDIENCE",
    ),
    # Otherwise somebody believes that the service is locked, and it is open.
    (
        ("auth", "iap_audience"),
        lambda auth, audience: auth == "iap" or not audience,
        "IAP_AUDIENCE needs AUTH=iap: set it, or unset the audience",
    ),
    (
        ("auth", "oidc_audience", "oidc_allowed"),
        lambda auth, audience, allowed: auth == "oidc" or not (audience or allowed),
        "OIDC_AUDIENCE and OIDC_ALLOWED need AUTH=oidc: set it, or unset them",
    ),
    (
        ("auth", "api_key"),
        lambda auth, api_key: auth == "api_key" or not api_key,
        "ETL_API_KEY needs AUTH=api_key: set it, or unset the key",
    ),
)


def _misfits(settings: Settings, *, is_service: bool, is_local: bool) -> list[str]:
    """Settings that exceed the environment's limits: one sentence each."""
    found = []
    longest = settings.timeout_seconds + settings.lease_wait_seconds
    if is_service and longest > _LONGEST_REQUEST_SECONDS:
        found.append(
            f"ETL_TIMEOUT_SECONDS is {settings.timeout_seconds} and LEASE_WAIT_SECONDS"
            f" {settings.lease_wait_seconds}, and Cloud Run ends a request after"
            f" {_LONGEST_REQUEST_SECONDS} s at most: set less, or run as a job."
        )
    if not is_local and settings.lease_seconds < _SHORTEST_LEASE_SECONDS:
        found.append(
            f"LEASE_SECONDS is {settings.lease_seconds}, so the lease is renewed every"
            f" {settings.lease_seconds / 4:g} s, and each renewal takes BigQuery up to 3 s: set at"
            f" least {_SHORTEST_LEASE_SECONDS}."
        )
    return found


def _read(setting: Setting, environ: Mapping[str, str]) -> Any:  # noqa: ANN401 - one type per field
    text = environ.get(setting.variable, "").strip()
    if not text and not (setting.kind.blank_counts and setting.variable in environ):
        return _REFUSED if setting.required else setting.default
    try:
        return setting.kind.parse(text)
    except ValueError:
        return _REFUSED


def _shown(setting: Setting, value: object) -> object:
    if isinstance(value, tuple):
        return ["(not shown)" if setting.is_private else item for item in value]
    if setting.is_private and value is not None:
        return "(not shown)"
    return str(value) if isinstance(value, Path) else value


def _check(values: Mapping[str, object]) -> None:
    problems = [
        f"{each.variable} must be set to {each.takes}"
        for each in SETTINGS
        if not each.kind.accepts(values[each.field])
    ]
    problems += [
        sentence
        for names, agree, sentence in _RULES
        if not agree(*(values[name] for name in names))
    ]
    if problems:
        msg = "; ".join(problems) + "."
        raise SettingsError(msg)
