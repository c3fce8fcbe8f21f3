"""The emulator made several times cheaper, for tests: its tables in DuckDB itself, in memory.

Replaces parts of local-bigquery 0.3.2; docs/development.md says what it leaves out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def use_fast_emulator(app: ASGIApp) -> ASGIApp:
    """Replace those parts for as long as the process lives; before the first connection.

    Returns what answers in the place of the emulator's `app`.
    """
    from sandbox.fast.databases import use_native_databases
    from sandbox.fast.lookups import Lookups, ask_once
    from sandbox.fast.memory import keep_in_memory
    from sandbox.fast.requests import QuickRequests
    from sandbox.fast.time_travel import keep_the_past
    from sandbox.fast.translations import remember_translations

    keep_in_memory()
    lookups = Lookups()
    past = use_native_databases(lookups)
    keep_the_past(past)
    ask_once(lookups)
    remember_translations(past, lookups)
    return QuickRequests(app)
