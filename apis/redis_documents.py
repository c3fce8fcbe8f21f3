"""Documents in Redis by JSON.SET and DEL, checking each answer. Knows no document.

Both commands may be repeated, so a pipeline whose connection broke is sent again as a whole. In a
pipeline one command that fails neither stops nor undoes the others: each key has its own outcome.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from pathlib import Path  # noqa: TC003 - a field's type
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from apis.event_loop import WatchedLoop
from runs.errors import CredentialsError, DestinationError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

LOG: Final = logging.getLogger("posthog_etl")
_PIPELINE: Final = 500  # commands that travel together
_SECONDS: Final = 20.0  # for a connection, and for the answers of a pipeline
_ATTEMPTS: Final = 5
_TEMPORARY: Final = (  # answers of a server that is starting or no longer the primary
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.MasterDownError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """Where Redis is, and how it is spoken to."""

    host: str = field(repr=False)
    port: int = 6380
    password: str | None = field(default=None, repr=False)
    tls: bool = True
    ca_path: Path | None = None  # of a server whose certificate no public authority signed
    first_pause_seconds: float = 0.5


class RedisDocuments:
    """A client of one Redis, for one run and one thread. Use it in a `with` block."""

    def __init__(self, server: RedisServer, *, check: Callable[[], None] = lambda: None) -> None:
        self._server = server
        self._watched = WatchedLoop(check)
        self._redis = Redis(
            host=server.host,
            port=server.port,
            password=server.password or None,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # done only here, with logs and checks
            **_tls(server),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._watched.close(self._redis.aclose())

    def check_ready(self) -> None:
        """Raise what would fail every document: no connection, a refused password, no JSON."""
        try:
            self._run(partial(self._send_one, "JSON.GET", "posthog_etl:none"))
        except redis_errors.NoPermissionError:
            return  # it may still be allowed to write
        except redis_errors.ResponseError as error:
            message = "Redis knows no JSON.SET: load its JSON module, or use Redis 8."
            raise DestinationError(message) from error

    def write(
        self, documents: Mapping[str, Mapping[str, Any]], gone: Iterable[str]
    ) -> dict[str, str | None]:
        """Put the documents under their keys, and delete the keys that are gone.

        Each key with None where Redis has done so, or with what it answered instead.
        """
        commands = [
            *((key, ("JSON.SET", key, "$", _json(each))) for key, each in documents.items()),
            *((key, ("DEL", key)) for key in gone),
        ]
        outcomes: dict[str, str | None] = {}
        for part in batched(commands, _PIPELINE, strict=False):
            answers = self._run(partial(self._send, [command for _, command in part]))
            for (key, _), answer in zip(part, answers, strict=True):
                outcomes[key] = _failure(answer)
        return outcomes

    async def _send_one(self, *command: str) -> object:
        answer: object = await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer

    async def _send(self, commands: list[tuple[Any, ...]]) -> list[object]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[object] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, _TEMPORARY):
                raise answer
        return answers

    def _run[T](self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(
                (redis_errors.ConnectionError, redis_errors.TimeoutError, *_TEMPORARY)
            ),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential_jitter(
                multiplier=self._server.first_pause_seconds, jitter=self._server.first_pause_seconds
            ),
            sleep=asyncio.sleep,
            before_sleep=_log,
            reraise=True,
        )

        async def attempt() -> T:
            try:
                return await work()
            except redis_errors.AuthenticationError:  # which is a ConnectionError, too
                message = "Redis did not accept the password: correct REDIS_PASSWORD."
                raise CredentialsError(message) from None
            except redis_errors.ConnectionError as error:
                if isinstance(error.__context__, ssl.SSLCertVerificationError):
                    message = "The certificate of Redis is not trusted: set REDIS_CA_PATH."
                    raise SettingsError(message) from None
                raise

        try:
            return self._watched.run(retrying(attempt))
        except (redis_errors.ConnectionError, redis_errors.TimeoutError, *_TEMPORARY) as error:
            message = (
                f"Redis can't be reached ({type(error).__name__}): check REDIS_HOST, REDIS_PORT "
                "and REDIS_TLS, or try again later."
            )
            raise UnavailableError(message) from None


class DryDocuments:
    """The client of a dry run: accepts every document, writes none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It has nothing to close."""

    def write(
        self, documents: Mapping[str, Mapping[str, Any]], gone: Iterable[str]
    ) -> dict[str, str | None]:
        """Each key, as if Redis had done what was asked."""
        return dict.fromkeys([*documents, *gone])


def _tls(server: RedisServer) -> dict[str, Any]:
    if not server.tls:
        return {}
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(server.ca_path) if server.ca_path else None,
    }


def _log(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0
    LOG.warning("Redis failed (%s): again in %.1f s", type(failure).__name__, pause)


def _failure(answer: object) -> str | None:
    """What Redis said, where it is an error: its class, since its text may quote a document."""
    if not isinstance(answer, Exception):
        return None
    code = str(answer).split(" ", 1)[0]
    return code if code.isupper() and code.isalpha() else type(answer).__name__


def _json(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document)
