"""All stand-ins at once, with sample data: what `python -m sandbox apis` keeps running."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from sandbox.apis import anthropic, dogs, tmdb
from sandbox.apis.serving import serve
from sandbox.apis.valkey import HOST, serve_redis

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

_FILE: Final = "apis.json"
_DAYS: Final = 40  # of sample data: more than a request of Anthropic's API covers


@contextmanager
def serve_everything(
    directory: Path, last_day: dt.date, *, seed: int = 1
) -> Iterator[dict[str, str]]:
    """Serve within the block; the settings by which jobs find them, which are in a file, too."""
    directory.mkdir(parents=True, exist_ok=True)
    usage, breeds, changes = (
        anthropic.FakeAnthropic(),
        dogs.FakeDogs(dogs.sample_breeds(seed=seed)),
        tmdb.FakeTmdb(),
    )
    anthropic.fill(usage, last_day, days=_DAYS, seed=seed)
    tmdb.fill(changes, last_day, days=_DAYS, seed=seed)
    with ExitStack() as stack:
        for fake in (usage, breeds, changes):
            stack.enter_context(serve(fake))
        settings = {
            "ANTHROPIC_BASE_URL": usage.url,
            "ANTHROPIC_ORGANIZATION_ID": usage.organization,
            "ANTHROPIC_ADMIN_API_KEY": usage.key or "",
            "DOG_API_BASE_URL": f"{breeds.url}/v1",
            "DOG_API_ENDPOINT": "breeds",
            "TMDB_BASE_URL": changes.url,
            "TMDB_READ_TOKEN": changes.key or "",
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(stack.enter_context(serve_redis(directory))),
            "REDIS_TLS": "false",
        }
        file = directory / _FILE
        file.write_text(json.dumps(settings), encoding="utf-8")
        stack.callback(file.unlink, missing_ok=True)
        yield settings


def running_settings(directory: Path) -> dict[str, str]:
    """The settings of the stand-ins that run in a directory; none where none do."""
    try:
        found: dict[str, str] = json.loads((directory / _FILE).read_text("utf-8"))
    except (OSError, ValueError):  # there is none, or it is being written
        return {}
    return found
