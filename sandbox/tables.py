"""The columns of the four source tables, as PostHog's export and Firebase's load make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from google.cloud.bigquery import SchemaField

if TYPE_CHECKING:
    from collections.abc import Mapping

type TableName = Literal["posthog_events", "posthog_sessions", "firebase_users", "firebase_events"]
type PropertiesType = Literal["string", "json"]

TABLE_NAMES: Final[tuple[TableName, ...]] = get_args(TableName.__value__)
PROPERTIES_TYPES: Final[tuple[PropertiesType, ...]] = get_args(PropertiesType.__value__)

_EVENTS: Final = {
    "uuid": "STRING",
    "event": "STRING",
    "properties": "PROPERTIES",
    "elements": "STRING",
    "set": "PROPERTIES",
    "set_once": "PROPERTIES",
    "distinct_id": "STRING",
    "team_id": "INT64",
    "ip": "STRING",
    "site_url": "STRING",
    "timestamp": "TIMESTAMP",
    "bq_ingested_timestamp": "TIMESTAMP",
}
_SESSIONS: Final = {
    "session_id": "STRING",
    "session_id_v7": "STRING",
    "team_id": "INT64",
    "distinct_id": "STRING",
    "start_timestamp": "TIMESTAMP",
    "end_timestamp": "TIMESTAMP",
    "urls": "REPEATED STRING",
    "num_uniq_urls": "INT64",
    "entry_current_url": "STRING",
    "entry_pathname": "STRING",
    "end_current_url": "STRING",
    "end_pathname": "STRING",
    "entry_utm_source": "STRING",
    "entry_utm_medium": "STRING",
    "entry_utm_campaign": "STRING",
    "entry_referring_domain": "STRING",
    "entry_gclid": "STRING",
    "pageview_count": "INT64",
    "autocapture_count": "INT64",
    "screen_count": "INT64",
    "channel_type": "STRING",
    "session_duration": "INT64",
    "is_bounce": "BOOL",
}
_USERS: Final = {
    "user_id": "STRING",
    "phoneNumber": "STRING",
    "fullName": "STRING",
    "username": "STRING",
    "email": "STRING",
    "contactAccessGranted": "BOOL",
    "businessUser": "BOOL",
    "createdAt": "TIMESTAMP",
    "etl_loaded_at": "TIMESTAMP",
}
_DOCUMENTS: Final = {
    "document_id": "STRING",
    "user_id": "STRING",
    "createdAt": "TIMESTAMP",
    "eventDate": "STRING",
    "type": "STRING",
    "etl_loaded_at": "TIMESTAMP",
}
_COLUMNS: Final[Mapping[TableName, Mapping[str, str]]] = {
    "posthog_events": _EVENTS,
    "posthog_sessions": _SESSIONS,
    "firebase_users": _USERS,
    "firebase_events": _DOCUMENTS,
}


def schema(table: TableName, properties: PropertiesType) -> list[SchemaField]:
    """Return the columns of `table` in the export's order; all may be null."""
    return [_field(name, kind, properties) for name, kind in _COLUMNS[table].items()]


def _field(name: str, kind: str, properties: PropertiesType) -> SchemaField:
    mode, _, field_type = kind.rpartition(" ")
    if field_type == "PROPERTIES":
        field_type = properties.upper()
    return SchemaField(name, field_type, mode or "NULLABLE")
