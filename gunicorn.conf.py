"""gunicorn's settings for the service: start it with `gunicorn`, on Cloud Run and elsewhere."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

wsgi_app = "app:app"
# On the emulator only this machine may call, and callers are not checked.
_host = "127.0.0.1" if any(each.endswith(":local()") for each in sys.argv) else "0.0.0.0"  # noqa: S104
bind = f"{_host}:{os.environ.get('PORT') or 8080}"

# One process: a run may use all of the instance's memory, and its progress is read here.
workers = 1
worker_class = "service.worker.Worker"  # gthread, with a time-out on silent clients
threads = 8  # a run occupies one for up to an hour; the others answer meanwhile
timeout = 0  # a run ends itself at ETL_TIMEOUT_SECONDS
graceful_timeout = 8  # Cloud Run: SIGKILL 10 seconds after SIGTERM

forwarder_headers = ""  # no proxy sets SCRIPT_NAME, and whoever sends it gets gunicorn's 500
control_socket_disable = True  # nobody uses it, and the file system may be read-only
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a heartbeat file


def post_worker_init(worker: object) -> None:  # noqa: ARG001 - gunicorn passes it
    """Tell the run in progress to stop before gunicorn's own handler ends the worker.

    gunicorn's handlers of SIGINT and SIGQUIT would take away a run's threads, so the service
    ends as it does on SIGTERM.
    """
    handler = signal.getsignal(signal.SIGTERM)

    def stop(_: int, frame: FrameType | None) -> None:
        # If no run has started, the module isn't loaded and there is nothing to stop.
        if "runs.supervision" in sys.modules:
            sys.modules["runs.supervision"].STOP.set()
        if callable(handler):
            handler(signal.SIGTERM, frame)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, stop)
