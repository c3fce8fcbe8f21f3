"""The requests that a run sends most, answered without FastAPI, which costs more than the answers.

What is unusual about a request is left to FastAPI. Written for local-bigquery 0.3.2: its `app` and
the functions of its `api`.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from fastapi import Response
from local_bigquery.api import datasets, jobs, tables
from local_bigquery.app import PREFIX, PROJECT_ID, handle_error
from local_bigquery.models import Job, Table
from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_bigquery.resource import Resource
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAME: Final = r"([\w$.:-]+)"
_DATASET: Final = f"/datasets/{_NAME}"
_TABLE: Final = f"{_DATASET}/tables/{_NAME}"
_INT64: Final = "formatOptions.useInt64Timestamp"
_PARAMETERS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "maxResults": ("maxResults", int),
    "pageToken": ("pageToken", str),
    "startIndex": ("startIndex", int),
    "timeoutMs": ("timeoutMs", int),
    "selectedFields": ("selectedFields", str),
    "view": ("view", str),
    _INT64: (
        "int64_timestamps",
        {"True": True, "true": True}.__getitem__,
    ),
}
_THREADS: Final = 40  # as many as FastAPI has


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A function of the API: its address, its body, and which parameters it takes."""

    method: str
    path: str
    function: Callable[..., Any]
    body: type[Resource] | None = None
    parameters: frozenset[str] = frozenset()


_PAGE: Final = frozenset({"maxResults", "pageToken", "startIndex", _INT64})
_ENDPOINTS: Final = tuple(
    (each, re.compile(f"{PREFIX}/projects/{_NAME}{each.path}"))
    for each in (
        _Endpoint("POST", "/jobs", jobs.insert_job, Job),
        _Endpoint("GET", f"/queries/{_NAME}", jobs.get_query_results, None, _PAGE | {"timeoutMs"}),
        _Endpoint("GET", f"{_TABLE}/data", tables.list_rows, None, _PAGE | {"selectedFields"}),
        _Endpoint("GET", _TABLE, tables.get_table, None, frozenset({"selectedFields", "view"})),
        _Endpoint("POST", f"{_DATASET}/tables", tables.insert_table, Table),
        _Endpoint("DELETE", _TABLE, tables.delete_table),
        _Endpoint("GET", _DATASET, datasets.get_dataset),
    )
)


class QuickRequests:
    """An ASGI application in front of the emulator's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is asked most, and pass the rest on."""
        found = _find(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        endpoint, call = found
        if endpoint.body is not None:
            body = await _read(receive)
            try:
                call.keywords["body"] = endpoint.body.model_validate_json(body)
            except ValidationError:
                await self._app(scope, _again(body, receive), send)
                return
        loop = asyncio.get_running_loop()
        try:
            answer = _response(await loop.run_in_executor(self._threads, call))
        except Exception as error:  # noqa: BLE001 - the emulator's own handler takes all
            answer = await handle_error(None, error)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": answer.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": answer.body})


def _find(scope: Scope) -> tuple[_Endpoint, partial[Any]] | None:
    """The endpoint of a request, and its function with the arguments; None if in doubt."""
    for endpoint, path in _ENDPOINTS:
        match = path.fullmatch(scope["path"]) if endpoint.method == scope["method"] else None
        if match and PROJECT_ID.match(match[1]) and _is_usual(endpoint, dict(scope["headers"])):
            try:
                return endpoint, partial(
                    endpoint.function, *match.groups(), **_given(endpoint, scope)
                )
            except (KeyError, ValueError):
                return None
    return None


def _is_usual(endpoint: _Endpoint, headers: dict[bytes, bytes]) -> bool:
    is_json = endpoint.body is None or headers.get(b"content-type") == b"application/json"
    return is_json and b"content-encoding" not in headers


def _given(endpoint: _Endpoint, scope: Scope) -> dict[str, object]:
    """The values of the endpoint's parameters; what FastAPI may read otherwise is an error."""
    values: dict[str, object] = {}
    for name, text in parse_qsl(scope["query_string"].decode(), keep_blank_values=True):
        if name in endpoint.parameters:
            keyword, convert = _PARAMETERS[name]
            values[keyword] = convert(text)
    if _INT64 in endpoint.parameters:
        values.setdefault(_PARAMETERS[_INT64][0], False)
    return values


async def _read(receive: Receive) -> bytes:
    parts, has_more = [], True
    while has_more:
        message = await receive()
        parts.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


def _response(answer: Response | Resource | None) -> Response:
    if answer is None:
        return Response(status_code=204)
    if isinstance(answer, Response):
        return answer
    text = answer.model_dump_json(by_alias=True, exclude_unset=True)
    return Response(text, media_type="application/json")
