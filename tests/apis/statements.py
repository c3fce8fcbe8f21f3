"""Every statement of the jobs that read APIs, by the name of its snapshot."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from apis import publication
from apis.tables import CLAUDE_TABLES, DOG_BREEDS, DOG_BREEDS_STAGED, TMDB_STATE, TableSchema
from apis.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE = "etl_lease_claude_usage"
STATE = "etl_state_tmdb_changes"
WINDOW = Window(first=dt.date(2026, 10, 14), last=dt.date(2026, 10, 20))

TABLES: dict[str, TableSchema] = {
    **CLAUDE_TABLES,
    **{f"staging_{name}": schema for name, schema in CLAUDE_TABLES.items()},
    "dog_breeds": DOG_BREEDS,
    "staging_dog_breeds": DOG_BREEDS_STAGED,
    STATE: TMDB_STATE,
}


def statements(full_name: Callable[[str], str] = str) -> dict[str, str]:
    """All statements; tables have short names unless `full_name` writes them otherwise."""
    usage = [
        publication.Replacement(
            table=full_name(name), staged=full_name(f"staging_{name}"), schema=schema
        )
        for name, schema in CLAUDE_TABLES.items()
    ]
    breeds = publication.Replacement(
        table=full_name("dog_breeds"),
        staged=full_name("staging_dog_breeds"),
        schema=DOG_BREEDS,
        expressions=publication.BREED_EXPRESSIONS,
    )
    return {
        "claude_audit_costs": publication.costs_audit_sql(full_name("staging_claude_costs")),
        "claude_audit_usage": publication.usage_audit_sql(full_name("staging_claude_usage_keys")),
        "claude_audit_code": publication.code_audit_sql(
            full_name("staging_claude_code_productivity")
        ),
        "claude_publish": publication.replace_window_sql(full_name(LEASE), usage, WINDOW),
        "claude_latest_days": publication.latest_days_sql(
            {name: full_name(name) for name in CLAUDE_TABLES}
        ),
        "claude_missing_days": publication.missing_days_sql(full_name("claude_costs")),
        "claude_monthly_totals": publication.monthly_totals_sql(full_name("claude_costs")),
        "dogs_audit": publication.breeds_audit_sql(
            full_name("staging_dog_breeds"), full_name("dog_breeds")
        ),
        "dogs_check": publication.breeds_check_sql(full_name("dog_breeds")),
        "dogs_publish": publication.replace_window_sql(full_name(LEASE), [breeds], None),
        "tmdb_watermarks": publication.watermarks_sql(full_name(STATE)),
        "tmdb_move_watermarks": publication.move_watermarks_sql(full_name(LEASE), full_name(STATE)),
        "tmdb_complete": publication.complete_only_sql(full_name(LEASE)),
    }
