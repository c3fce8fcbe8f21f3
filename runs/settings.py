"""The settings of a deployment: one typed record, read from the environment. Not a request."""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from runs.errors import SettingsError

type Engine = Literal["pandas", "bigquery"]
type Auth = Literal["platform", "oidc", "api_key"]

ENGINES: Final[tuple[Engine, ...]] = ("pandas", "bigquery")
AUTHS: Final[tuple[Auth, ...]] = ("platform", "oidc", "api_key")
LOCAL_PROJECT: Final = "local"
_LONGEST_NAME: Final = 255  # of a file or folder, in bytes
_SHORTEST_LEASE_SECONDS: Final = 20  # four renewals, each an UPDATE of one to three seconds
_LONGEST_REQUEST_SECONDS: Final = 3600  # Cloud Run answers 504 then, and takes the CPU away


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The values a setting takes: in words, how text becomes one, and which are accepted."""

    takes: str
    parse: Callable[[str], object]
    accepts: Callable[[object], bool]
    blank_counts: bool = False
    """An empty variable is a value of its own; elsewhere it is the same as an unset one."""


def _text(takes: str, pattern: str) -> Kind:
    shape = re.compile(pattern)

    def accepts(value: object) -> bool:
        return isinstance(value, str) and shape.fullmatch(value) is not None

    return Kind(takes=takes, parse=str, accepts=accepts)


def _whole_number(least: int, most: int) -> Kind:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise ValueError(text)
        return int(text)

    def accepts(value: object) -> bool:
        return type(value) is int and least <= value <= most

    return Kind(takes=f"a whole number from {least} to {most}", parse=parse, accepts=accepts)


def _amount(takes: str) -> Kind:
    def accepts(value: object) -> bool:
        return isinstance(value, float | int) and 0 <= value < math.inf

    return Kind(takes=takes, parse=float, accepts=accepts)


def _choice(names: tuple[str, ...]) -> Kind:
    return Kind(takes=" or ".join(names), parse=str, accepts=lambda value: value in names)


def _switch() -> Kind:
    values = {"true": True, "1": True, "false": False, "0": False}

    def parse(text: str) -> bool:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return Kind(takes="true or false", parse=parse, accepts=lambda value: type(value) is bool)


def _list(takes: str, pattern: str) -> Kind:
    shape = re.compile(pattern)

    def parse(text: str) -> tuple[str, ...]:
        # Sorted: writing the same list in another order must not change `_metrics_version`.
        return tuple(sorted({item.strip() for item in text.split(",") if item.strip()}))

    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and all(shape.fullmatch(item) for item in value)

    return Kind(takes=f"{takes}, separated by commas", parse=parse, accepts=accepts)


def _path(takes: str) -> Kind:
    def accepts(value: object) -> bool:
        # A pasted key is refused here, where no message shows the value.
        return isinstance(value, Path) and not _is_no_path(str(value))

    return Kind(takes=takes, parse=Path, accepts=accepts)


def _is_no_path(text: str) -> bool:
    has_long_name = any(len(name.encode()) > _LONGEST_NAME for name in text.split("/"))
    return has_long_name or bool(re.search(r"[{\n\0]", text)) or _is_encoded_json(text)


def _is_encoded_json(text: str) -> bool:
    """Whether it is an object as JSON in base64: the usual way to put a key into a variable."""
    padded = text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4)
    try:
        return isinstance(json.loads(base64.b64decode(padded, validate=True)), dict)
    except (binascii.Error, ValueError):
        return False


def _or_none(kind: Kind, *, when_blank: bool = False) -> Kind:
    return Kind(
        takes=kind.takes + (", or empty for none" if when_blank else ""),
        parse=lambda text: kind.parse(text) if text else None,
        accepts=lambda value: value is None or kind.accepts(value),
        blank_counts=when_blank,
    )


_PROJECT: Final = _text(
    "a Google Cloud project id, like my-project-123",
    r"(?:[a-z0-9][a-z0-9.-]{0,62}:)?[a-z][a-z0-9-]{1,61}[a-z0-9]",
)
_DATASET: Final = _text(
    "a BigQuery dataset name of letters, digits and underscores", r"[A-Za-z0-9_]{1,1024}"
)
_TABLE: Final = _text(
    "a table as [PROJECT.][DATASET.]TABLE",
    r"(?:(?:(?:[a-z0-9][a-z0-9.-]{0,62}:)?[a-z][a-z0-9-]{1,61}[a-z0-9]\.)?[A-Za-z0-9_]{1,1024}\.)?"
    r"[A-Za-z0-9_-]{1,1024}",
)
_LOCATION: Final = _text(
    "a BigQuery location, like US or europe-west1", r"[A-Za-z][A-Za-z0-9-]{1,62}"
)
_SECRET: Final = _text(
    "the name of a secret, or projects/PROJECT/secrets/NAME[/versions/VERSION]",
    r"(?:projects/[a-z0-9.:-]+/secrets/[A-Za-z0-9_-]{1,255}(?:/versions/[A-Za-z0-9_-]+)?"
    r"|[A-Za-z0-9_-]{1,255})",
)
_EMAILS: Final = _list("e-mail addresses", r"[^@\s*'\"]+@[^@\s*'\"]+")


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
    """Its value is a secret, or tells a project or a person: nothing shows it."""

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
            _PROJECT,
            "Project of the datasets, where the queries run and are paid",
            is_private=True,
        )
    )
    posthog_dataset_id: str = field(
        default="posthog_etl",
        metadata=_env("POSTHOG_DATASET_ID", _DATASET, "Dataset of PostHog's batch export"),
    )
    firebase_dataset_id: str = field(
        default="firebase_etl_prod",
        metadata=_env(
            "FIREBASE_DATASET_ID", _DATASET, "Dataset of the app's users and of what they created"
        ),
    )
    events_table: str = field(
        default="events",
        metadata=_env(
            "EVENTS_TABLE",
            _TABLE,
            "Table of PostHog's events; its dataset is POSTHOG_DATASET_ID unless it names one",
            is_private=True,  # it may name a project
        ),
    )
    posthog_sessions_table: str | None = field(
        default=None,
        metadata=_env(
            "POSTHOG_SESSIONS_TABLE",
            _or_none(_TABLE),
            "Table of PostHog's sessions; unset: sessions in POSTHOG_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    users_table: str | None = field(
        default=None,
        metadata=_env(
            "USERS_TABLE",
            _or_none(_TABLE),
            "Table of the app's users; unset: users in FIREBASE_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    documents_table: str | None = field(
        default=None,
        metadata=_env(
            "DOCUMENTS_TABLE",
            _or_none(_TABLE),
            "Table of what users created; unset: events in FIREBASE_DATASET_ID, if there is one",
            is_private=True,
        ),
    )
    aggregated_dataset_id: str = field(
        default="posthog_aggregated",
        metadata=_env(
            "POSTHOG_AGGREGATED_DATASET_ID",
            _DATASET,
            "Dataset that is written: created when missing, never one of the sources",
        ),
    )
    secret_name: str | None = field(
        default="bigquery-key",
        metadata=_env(
            "BIGQUERY_SECRET_NAME",
            _or_none(_SECRET, when_blank=True),
            "Secret that holds the service-account key; empty: the attached service account",
            is_private=True,  # it may name the project
        ),
    )
    credentials_path: Path | None = field(
        default=None,
        metadata=_env(
            "BIGQUERY_CREDENTIALS_PATH",
            _or_none(_path("the path of a service-account key file, not its content")),
            "Service-account key file, for use outside Google Cloud; goes before the secret",
            is_private=True,  # somebody may have put the key itself there
        ),
    )
    location: str | None = field(
        default=None,
        metadata=_env(
            "BIGQUERY_LOCATION",
            _or_none(_LOCATION),
            "Location of all datasets; unset: that of the sources",
        ),
    )
    engine: Engine = field(
        default="pandas",
        metadata=_env("ENGINE", _choice(ENGINES), "What aggregates where a request does not say"),
    )
    max_batch_events: int = field(
        default=1_000_000,
        metadata=_env(
            "MAX_BATCH_EVENTS",
            _whole_number(1, 100_000_000),
            "Events aggregated at a time: bounds the memory of a run, not its size",
        ),
    )
    churn_days: int = field(
        default=14,
        metadata=_env(
            "CHURN_DAYS",
            _whole_number(1, 3650),
            "Days without a session that make a person churned",
        ),
    )
    max_bytes_billed: int | None = field(
        default=None,
        metadata=_env(
            "MAX_BYTES_BILLED",
            # BigQuery bills 10 MiB a query at least: below that every query would fail.
            _or_none(_whole_number(10 * 1024 * 1024, 2**63 - 1)),
            "Bytes that no single query may bill; unset: no limit",
        ),
    )
    max_unasked_bytes: int = field(
        default=200_000_000_000,
        metadata=_env(
            "MAX_UNASKED_BYTES",
            _whole_number(0, 2**63 - 1),
            "Bytes of events that a run may read unless a full load or days were asked for",
        ),
    )
    usd_per_tib: float = field(
        default=6.25,
        metadata=_env(
            "USD_PER_TIB",
            _amount("a price in US dollars, like 6.25"),
            "Price of a TiB of queries, for the cost in reports",
        ),
    )
    timeout_seconds: int = field(
        default=3300,  # Cloud Run ends a request after 3600 at most
        metadata=_env(
            "ETL_TIMEOUT_SECONDS",
            _whole_number(1, 604_800),  # Cloud Run: 168 hours per job task at most
            "Seconds after which a run stops itself and publishes nothing",
        ),
    )
    lease_seconds: int = field(
        # More than a publication takes, during which nothing renews it, and less than the five
        # minutes after which Cloud Scheduler tries again.
        default=240,
        metadata=_env(
            "LEASE_SECONDS",
            _whole_number(1, 3600),
            "Seconds after which the lease of a run that died is free; renewed every quarter",
        ),
    )
    lease_wait_seconds: int = field(
        default=0,
        metadata=_env(
            "LEASE_WAIT_SECONDS",
            _whole_number(0, 3600),
            "Seconds to wait for another run to end, instead of refusing at once",
        ),
    )
    auth: Auth = field(
        default="platform",
        metadata=_env(
            "AUTH",
            _choice(AUTHS),
            "Who checks callers: Cloud Run, or the service itself by token or by key",
        ),
    )
    oidc_audience: str | None = field(
        default=None,
        metadata=_env(
            "OIDC_AUDIENCE",
            _or_none(
                _text("the audience of the tokens, as a rule the service's URL", r"[^\s'\"]+")
            ),
            "Audience that a token must be made for, with AUTH=oidc",
            is_private=True,
        ),
    )
    oidc_allowed: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "OIDC_ALLOWED",
            _EMAILS,
            "Service accounts and people that may call the service, with AUTH=oidc",
            is_private=True,
        ),
    )
    api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_env(
            "ETL_API_KEY",
            _or_none(_text("at least 16 printable characters without spaces", r"[!-~]{16,}")),
            "Key that callers must send, with AUTH=api_key",
            is_private=True,
        ),
    )
    exclude_distinct_ids: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "EXCLUDE_DISTINCT_IDS",
            _list("distinct ids", r"(?s:.+)"),
            "Distinct ids whose events are set aside",
            is_private=True,
        ),
    )
    exclude_libs: tuple[str, ...] = field(
        default=(),
        metadata=_env(
            "EXCLUDE_LIBS",
            _list("PostHog library names, like posthog-python", r"(?s:.+)"),
            "Libraries whose events are set aside",
        ),
    )
    exclude_emulators: bool = field(
        default=False,
        metadata=_env("EXCLUDE_EMULATORS", _switch(), "Set events of emulated devices aside"),
    )
    exclude_bots: bool = field(
        default=False,
        metadata=_env("EXCLUDE_BOTS", _switch(), "Set events of known bots aside"),
    )
    port: int = field(
        default=8080,
        metadata=_env("PORT", _whole_number(1, 65_535), "Port the service listens on"),
    )
    sandbox_dir: Path = field(
        default=Path(".sandbox"),
        metadata=_env(
            "SANDBOX_DIR",
            _path("the path of a directory"),
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
    # Otherwise somebody believes that the service is locked, and it is open.
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
    """What does not fit where the process runs: sentences with the numbers."""
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
