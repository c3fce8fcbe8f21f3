"""gunicorn's threaded worker, with a time-out for clients that stop mid-request."""

from __future__ import annotations

from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

SILENT_SECONDS: Final = 10.0  # how long a thread waits for the rest of a request


class Connection(TConn):  # type: ignore[misc]
    """A connection that is closed where nothing more of a request arrives in time."""

    def init(self) -> None:
        """Begin to read a request, the first one or another: gunicorn calls it for each."""
        super().init()
        self.sock.settimeout(SILENT_SECONDS)


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker, with such connections."""

    def enqueue_req(self, conn: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Hand a connection to a thread."""
        conn.__class__ = Connection  # gunicorn makes them deep within `accept`
        super().enqueue_req(conn)
