"""What `tmdb_changes` works with, by its settings: TMDB, Redis and its state. Takes no step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from apis.redis_documents import RedisServer
from apis.tmdb import BASE_URL, tmdb_api

if TYPE_CHECKING:
    from apis.http import Api
    from runs.settings import Settings

NAME: Final = "tmdb_changes"
STATE_TABLE: Final = "etl_state_tmdb_changes"


def tmdb(settings: Settings) -> Api:
    """TMDB, as the settings say; `needs` of the job says that the token is there."""
    return tmdb_api(settings.tmdb_read_token or "", base_url=settings.tmdb_base_url or BASE_URL)


def redis_server(settings: Settings) -> RedisServer:
    """Redis, likewise."""
    return RedisServer(
        host=settings.redis_host or "",
        port=settings.redis_port,
        password=settings.redis_password,
        tls=settings.redis_tls,
        ca_path=settings.redis_ca_path,
    )
