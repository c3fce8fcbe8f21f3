"""The time at which runs start, chosen by a test. Leases and snapshots go by BigQuery's own."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Self

import pytest

from runs import context as running

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def starting_at(moment: datetime) -> Iterator[None]:
    """Runs that begin within the block begin at this moment."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(moment.timestamp(), tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "datetime", Clock)
        yield
