"""Who may call the service: every way to fail, with tokens signed by our own key, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.serving import make_server

from app import create_app
from runs.errors import AuthenticationError
from runs.settings import Settings
from service import callers
from service.callers import CallerHeaders, make_gate

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEDULER = "scheduler@my-project.iam.gserviceaccount.com"
AUDIENCE = "https://etl.example"
KEY = "0123456789abcdef"
ENVIRON = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"}
OIDC = {"AUTH": "oidc", "OIDC_AUDIENCE": AUDIENCE, "OIDC_ALLOWED": SCHEDULER}
UNAUTHENTICATED = "The caller did not prove who it is: see AUTH in docs/reference.md."
_opener = build_opener(ProxyHandler({}))


class Call(Protocol):
    """Calls the service and returns the status and the body as text."""

    def __call__(self, headers: dict[str, str], path: str = "/config") -> tuple[int, str]:
        """Send a GET with these headers."""


@dataclass(frozen=True)
class Signer:
    """A private key, and the certificate that goes with it."""

    key_id: str
    private: rsa.RSAPrivateKey
    certificate: str

    @classmethod
    def make(cls, key_id: str) -> Signer:
        """A new signer, with a self-signed certificate."""
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, key_id)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(private, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return cls(key_id, private, pem)

    @cached_property
    def _signer(self) -> crypt.RSASigner:
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signer: crypt.RSASigner = crypt.RSASigner.from_string(pem, self.key_id)
        return signer

    def token(self, **claims: object) -> str:
        """A token with these claims and valid defaults for the others; None leaves a claim out."""
        now = int(time.time())
        defaults = {
            "iss": "https://accounts.google.com",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 3600,
            "email": SCHEDULER,
            "email_verified": True,
        }
        present = {name: value for name, value in (defaults | claims).items() if value is not None}
        return str(jwt.encode(self._signer, present).decode())


GOOGLE: Final = Signer.make("google-1")
NEXT: Final = Signer.make("google-2")
STRANGER: Final = Signer.make("google-1")  # has the key id of GOOGLE


@dataclass
class Certificates:
    """A server of certificates: what it serves, and how many requests it got."""

    url: str = ""
    served: Any = field(default_factory=lambda: {GOOGLE.key_id: GOOGLE.certificate})
    status: int = 200
    requests: int = 0
    answers: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving_certificates() -> Iterator[Certificates]:
    """Serve certificates on loopback within the block."""
    state = Certificates()
    state.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            state.answers.wait(60)
            body = json.dumps(state.served).encode()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}/certs"
        yield state
        server.shutdown()


@pytest.fixture
def certificates() -> Iterator[Certificates]:
    """A server of certificates for one test."""
    with serving_certificates() as state:
        yield state


@contextmanager
def calling(environ: dict[str, str], certificates_url: str = "") -> Iterator[Call]:
    """Serve with these settings within the block; yields a function that calls the service."""
    service = create_app(ENVIRON | environ, certificates_url=certificates_url)
    server = make_server("127.0.0.1", 0, service, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def call(headers: dict[str, str], path: str = "/config") -> tuple[int, str]:
        """The status, and the body as text."""
        request = Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
        try:
            with _opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    yield call
    server.shutdown()
    server.server_close()


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def segment(value: object) -> str:
    """A part of a JWT: JSON as base64url."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forged(algorithm: str) -> str:
    """A token that is not signed, or signed with the certificate instead of the private key."""
    claims = jwt.decode(GOOGLE.token(), verify=False)
    header = {"alg": algorithm, "typ": "JWT", "kid": GOOGLE.key_id}
    text = f"{segment(header)}.{segment(claims)}"
    if algorithm == "none":
        return f"{text}."
    signature = hmac.new(GOOGLE.certificate.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def tampered() -> str:
    """A token whose claims were changed after it was signed."""
    head, _, signature = GOOGLE.token().split(".")
    claims = jwt.decode(GOOGLE.token(), verify=False)
    return f"{head}.{segment({**claims, 'email': 'x@y'})}.{signature}"


def test_a_token_of_an_allowed_account_passes(certificates: Certificates) -> None:
    """A token that Google signed for us; Google's certificates are fetched once."""
    with calling(OIDC, certificates.url) as call:
        assert [call(bearer(GOOGLE.token()))[0] for _ in range(3)] == [200, 200, 200]
    assert certificates.requests == 1


def test_clocks_may_differ_by_ten_seconds(certificates: Certificates) -> None:
    """A token that was issued or expires a few seconds off by our clock is valid."""
    now = int(time.time())
    with calling(OIDC, certificates.url) as call:
        for claims in ({"iat": now + 5}, {"exp": now - 5}, {"nbf": now + 5}):
            assert call(bearer(GOOGLE.token(**claims)))[0] == 200, claims


NOW = int(time.time())
REFUSED = {
    "no token": "",
    "another scheme": f"Basic {GOOGLE.token()}",
    "no scheme": GOOGLE.token(),
    "an empty token": "Bearer ",
    "garbage": "Bearer garbage",
    "garbage of three parts": "Bearer a.b.c",
    "parts that are no objects": f"Bearer {segment([])}.{segment(1)}.{segment('x')}",
    "a key id that is no text": f"Bearer {segment({'alg': 'RS256', 'kid': []})}.{segment({})}.AA",
    "a deep nest": f"Bearer {segment({})}.{base64.urlsafe_b64encode(b'[' * 4000).decode()}.AA",
    "a token too long": f"Bearer {GOOGLE.token(name='x' * 9000)}",
    "another's signature": f"Bearer {STRANGER.token()}",
    "an unknown key": f"Bearer {NEXT.token()}",
    "changed claims": f"Bearer {tampered()}",
    "no algorithm": f"Bearer {forged('none')}",
    "HS256 with the public key": f"Bearer {forged('HS256')}",
    "expired": f"Bearer {GOOGLE.token(iat=NOW - 7200, exp=NOW - 3600)}",
    "expired a minute ago": f"Bearer {GOOGLE.token(exp=NOW - 60)}",
    "issued in an hour": f"Bearer {GOOGLE.token(iat=NOW + 3600, exp=NOW + 7200)}",
    "not valid before an hour": f"Bearer {GOOGLE.token(nbf=NOW + 3600)}",
    "no expiry": f"Bearer {GOOGLE.token(exp=None)}",
    "another audience": f"Bearer {GOOGLE.token(aud='https://other.example')}",
    "our audience among others": f"Bearer {GOOGLE.token(aud=[AUDIENCE, 'https://other.example'])}",
    "no audience": f"Bearer {GOOGLE.token(aud=None)}",
    "another issuer": f"Bearer {GOOGLE.token(iss='https://login.example')}",
    "no issuer": f"Bearer {GOOGLE.token(iss=None)}",
    "an e-mail not verified": f"Bearer {GOOGLE.token(email_verified=False)}",
    "an e-mail verified in words": f"Bearer {GOOGLE.token(email_verified='true')}",
    "nothing about the e-mail": f"Bearer {GOOGLE.token(email_verified=None)}",
    "no e-mail": f"Bearer {GOOGLE.token(email=None)}",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Call]:
    """Calls a service that checks tokens."""
    with serving_certificates() as state, calling(OIDC, state.url) as call:
        yield call


class Recorder(logging.Handler):
    """Records the log lines about callers."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line."""
        self.records.append(record)


@pytest.mark.parametrize("authorization", REFUSED.values(), ids=REFUSED)
def test_a_caller_without_proof_gets_a_401(guarded: Call, authorization: str) -> None:
    """The answer is always the same; the log has the reason, without the token."""
    recorder = Recorder()
    callers.LOG.addHandler(recorder)
    try:
        status, body = guarded({"Authorization": authorization} if authorization else {})
    finally:
        callers.LOG.removeHandler(recorder)
    assert status == 401
    assert json.loads(body) == {
        "error": {"type": "AuthenticationError", "message": UNAUTHENTICATED}
    }
    (warning,) = recorder.records
    assert warning.levelno == logging.WARNING
    token = authorization.partition(" ")[2]
    assert not [part for part in token.split(".") if len(part) > 6 and part in warning.getMessage()]


def test_a_known_caller_who_is_not_allowed_gets_a_403(guarded: Call) -> None:
    """Google signed the token, but for an account that is not allowed; the answer names nobody."""
    status, body = guarded(bearer(GOOGLE.token(email="somebody@example.com")))
    assert status == 403
    assert json.loads(body)["error"]["type"] == "ForbiddenError"
    assert "somebody" not in body
    assert SCHEDULER not in body


def test_headers_of_cloud_scheduler_prove_nothing(guarded: Call) -> None:
    """Anybody can send them."""
    headers = {
        "X-CloudScheduler": "true",
        "X-CloudScheduler-JobName": "nightly",
        "X-CloudScheduler-ScheduleTime": "2026-01-01T03:00:00Z",
        "User-Agent": "Google-Cloud-Scheduler",
    }
    assert guarded(headers)[0] == 401
    assert guarded(headers, "/runs")[0] == 401


@pytest.mark.parametrize(
    "path", ["/ready", "/status", "/runs", "/runs/x", "/jobs", "/config", "/run", "/nowhere", "/"]
)
def test_only_health_is_open(guarded: Call, path: str) -> None:
    """Every other path needs a token, even one that does not exist."""
    assert guarded({}, "/health")[0] == 200
    assert guarded({}, path)[0] == 401


def test_an_unknown_key_has_the_certificates_fetched_again(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are fetched again after a while, not for each call."""
    with calling(OIDC, certificates.url) as call:
        assert call(bearer(GOOGLE.token()))[0] == 200
        certificates.served = {NEXT.key_id: NEXT.certificate}
        assert [call(bearer(NEXT.token()))[0] for _ in range(3)] == [401, 401, 401]
        assert certificates.requests == 1
        monkeypatch.setattr(callers, "_MISSED_SECONDS", -1.0)
        assert call(bearer(NEXT.token()))[0] == 200
        assert call(bearer(GOOGLE.token()))[0] == 401


@pytest.mark.parametrize(
    ("status", "served"), [(500, {}), (302, {}), (200, []), (200, "text")], ids=str
)
def test_unavailable_certificates_give_a_503(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, status: int, served: object
) -> None:
    """A valid token is neither accepted nor refused: the caller may try again in a moment."""
    certificates.status, certificates.served = status, served
    with calling(OIDC, certificates.url) as call:
        code, body = call(bearer(GOOGLE.token()))
        assert (code, json.loads(body)["error"]["type"]) == (503, "UnavailableError")
        certificates.status, certificates.served = 200, {GOOGLE.key_id: GOOGLE.certificate}
        assert call(bearer(GOOGLE.token()))[0] == 503
        assert certificates.requests == 1
        monkeypatch.setattr(callers, "_FAILED_SECONDS", -1.0)
        assert call(bearer(GOOGLE.token()))[0] == 200


def test_an_unreachable_server_of_certificates_gives_a_503() -> None:
    """Nothing listens at its address."""
    with calling(OIDC, "http://127.0.0.1:9/certs") as call:
        assert call(bearer(GOOGLE.token()))[0] == 503


def test_nobody_waits_behind_a_slow_fetch(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller waits for the certificates, for a limited time; the others are answered."""
    certificates.answers.clear()
    monkeypatch.setattr(callers, "_FETCH_SECONDS", 1.0)
    with calling(OIDC, certificates.url) as call, ThreadPoolExecutor(10) as pool:
        started = time.monotonic()
        token = bearer(GOOGLE.token())
        codes = [each.result()[0] for each in [pool.submit(call, token) for _ in range(10)]]
        assert time.monotonic() - started < 5 * callers._FETCH_SECONDS  # noqa: SLF001 - patched
        certificates.answers.set()
    assert (codes, certificates.requests) == ([503] * 10, 1)


def test_known_certificates_outlive_a_failing_endpoint(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When they cannot be fetched again, they stay valid for a day."""
    with calling(OIDC, certificates.url) as call:
        assert call(bearer(GOOGLE.token()))[0] == 200
        monkeypatch.setattr(callers, "_CACHE_SECONDS", -1.0)
        certificates.status = 503
        assert call(bearer(GOOGLE.token()))[0] == 200
        assert certificates.requests == 2
        monkeypatch.setattr(callers, "_STALE_SECONDS", -1.0)
        assert call(bearer(GOOGLE.token()))[0] == 503


def test_allowed_addresses_are_compared_without_case() -> None:
    """Google may write an address with capitals that the setting does not have."""
    gate = callers._TokenGate(_oidc_settings(), _Known())  # noqa: SLF001 - without a server
    token = GOOGLE.token(email=SCHEDULER.replace("s", "S"))
    gate(CallerHeaders(authorization=f"Bearer {token}", api_key=None))


@given(st.text(max_size=200))
def test_any_malformed_authorization_is_refused(text: str) -> None:
    """Whatever the header contains, the caller did not prove who it is."""
    gate = callers._TokenGate(_oidc_settings(), _Known())  # noqa: SLF001 - without a server
    for authorization in (text, f"Bearer {text}", f"Bearer {text}.{text}.{text}"):
        with pytest.raises(AuthenticationError, match="did not prove"):
            gate(CallerHeaders(authorization=authorization, api_key=None))


def _oidc_settings() -> Settings:
    return Settings.from_environment(ENVIRON | OIDC)


class _Known(callers._Certificates):  # noqa: SLF001 - those that need no server
    def __init__(self) -> None:
        super().__init__("")
        self._known = {GOOGLE.key_id: GOOGLE.certificate}
        self._fetched_at = time.monotonic()


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (KEY, 200),
        (None, 401),
        ("", 401),
        (KEY[:-1], 401),
        (KEY + "0", 401),
        (KEY[:-1] + "0", 401),
        (KEY.upper(), 401),
        ("ключ".encode().decode("latin-1"), 401),
    ],
    ids=["right", "none", "empty", "shorter", "longer", "another", "upper", "not ASCII"],
)
def test_only_the_right_api_key_passes(key: str | None, status: int) -> None:
    """With AUTH=api_key the whole key has to match, and no token replaces it."""
    with calling({"AUTH": "api_key", "ETL_API_KEY": KEY}) as call:
        headers = {} if key is None else {"X-API-Key": key}
        code, body = call(headers)
        assert code == status
        assert status == 200 or json.loads(body)["error"]["message"] == UNAUTHENTICATED
        assert call({**headers, **bearer(GOOGLE.token())})[0] == status
        assert call({}, "/health")[0] == 200


def test_the_platform_checks_by_default() -> None:
    """With AUTH=platform a caller that reaches the service may call it."""
    gate = make_gate(Settings.from_environment(ENVIRON))
    gate(CallerHeaders(authorization=None, api_key=None))


def test_a_401_names_the_scheme() -> None:
    """As HTTP requires, it says how to authenticate."""
    answer = create_app(ENVIRON | OIDC).test_client().get("/runs")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
