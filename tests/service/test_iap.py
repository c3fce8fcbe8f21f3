"""Identity-Aware Proxy: only its signed header lets a caller in."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.auth import jwt
from google.auth.crypt import es256

from app import create_app
from runs.errors import AuthenticationError, SettingsError
from runs.settings import Settings
from service import callers
from service.callers import CallerHeaders, make_gate
from tests.service.test_callers import GOOGLE, UNAUTHENTICATED, Certificates, serving_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.callers import Gate

AUDIENCE: Final = "/projects/123/locations/us-central1/services/posthog-etl"
ENVIRON: Final = {
    "GOOGLE_CLOUD_PROJECT_ID": "my-project",
    "BIGQUERY_CREDENTIALS_PATH": "/no/key.json",
    "AUTH": "iap",
    "IAP_AUDIENCE": AUDIENCE,
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key with which the proxy signs."""

    key_id: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, key_id: str) -> Key:
        """A new key."""
        return cls(key_id, ec.generate_private_key(ec.SECP256R1()))

    @property
    def public(self) -> str:
        """The public key, as the proxy publishes it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = self.private.public_key().public_bytes(serialization.Encoding.PEM, form)
        return pem.decode()

    def token(self, **claims: object) -> str:
        """A token with these claims and valid defaults for the others; None leaves a claim out."""
        now = int(time.time())
        defaults = {
            "iss": "https://cloud.google.com/iap",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 600,
            "email": "somebody@example.com",
        }
        present = {name: value for name, value in (defaults | claims).items() if value is not None}
        return str(jwt.encode(es256.ES256Signer(self.private, self.key_id), present).decode())


PROXY: Final = Key.make("proxy-1")
NEXT: Final = Key.make("proxy-2")
STRANGER: Final = Key.make("proxy-1")  # has the key id of PROXY


@pytest.fixture
def keys() -> Iterator[Certificates]:
    """A server of the proxy's public keys."""
    with serving_certificates() as state:
        state.served = {PROXY.key_id: PROXY.public}
        yield state


@pytest.fixture
def gate(keys: Certificates) -> Gate:
    """The check that every request has to pass."""
    return make_gate(Settings.from_environment(ENVIRON), certificates_url=keys.url)


def passes(gate: Gate, token: str | None, **headers: str) -> bool:
    """Whether a caller with this header gets in."""
    sent = CallerHeaders(
        authorization=headers.get("authorization"),
        api_key=headers.get("api_key"),
        iap_assertion=token,
    )
    try:
        gate(sent)
    except AuthenticationError as error:
        return str(error) != UNAUTHENTICATED  # the answer says no more
    return True


def test_a_token_of_the_proxy_passes(gate: Gate) -> None:
    """If it is for this service, and neither expired nor of the future."""
    assert passes(gate, PROXY.token())


NOW: Final = int(time.time())
REFUSED: Final = {
    "no header": None,
    "not a token": "a.b.c",
    "signed by somebody else": STRANGER.token(),
    "another audience": PROXY.token(aud="/projects/123/apps/another"),
    "no audience": PROXY.token(aud=None),
    "another issuer": PROXY.token(iss="https://accounts.google.com"),
    "expired": PROXY.token(iat=NOW - 700, exp=NOW - 60),
    "of the future": PROXY.token(iat=NOW + 86_400),
    "not valid yet": PROXY.token(nbf=NOW + 86_400),
    "without an end": PROXY.token(exp=None),
    "very long": PROXY.token(text="x" * 9000),
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_token_is_refused(gate: Gate, name: str) -> None:
    """Whatever is wrong with it, the answer is the same."""
    assert not passes(gate, REFUSED[name])


def test_clocks_may_differ_a_little(gate: Gate) -> None:
    """A token that expired, or will be issued, within seconds by our clock is valid."""
    now = int(time.time())
    assert passes(gate, PROXY.token(iat=now - 600, exp=now - 5))
    assert passes(gate, PROXY.token(iat=now + 5))


def test_a_token_of_another_algorithm_is_refused(gate: Gate, keys: Certificates) -> None:
    """RS256 is refused even if its certificate is among the keys: the proxy signs by ES256 only."""
    keys.served = keys.served | {GOOGLE.key_id: GOOGLE.certificate}
    assert not passes(gate, GOOGLE.token(iss="https://cloud.google.com/iap", aud=AUDIENCE))


def test_other_credentials_are_refused(gate: Gate) -> None:
    """The proxy's token as a bearer token, or an API key, does not replace the header."""
    assert not passes(gate, None, authorization=f"Bearer {PROXY.token()}", api_key="0" * 16)


def test_new_keys_are_fetched(
    gate: Gate, keys: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the proxy changes its keys, the first token with a new key has them fetched again."""
    monkeypatch.setattr(callers, "_MISSED_SECONDS", 0.0)
    assert passes(gate, PROXY.token())
    keys.served = {NEXT.key_id: NEXT.public}
    assert passes(gate, NEXT.token())
    assert not passes(gate, PROXY.token())


def test_the_service_requires_the_header(
    keys: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Over HTTP, by the name that the proxy gives it; the log says what is missing."""
    client = create_app(ENVIRON, certificates_url=keys.url).test_client()
    header = {"X-Goog-IAP-JWT-Assertion": PROXY.token()}
    assert client.get("/config", headers=header).status_code == 200
    with caplog.at_level(logging.WARNING):
        assert client.get("/config").status_code == 401
    assert "X-Goog-IAP-JWT-Assertion" in caplog.text
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"IAP_AUDIENCE": ""}, "AUTH=iap needs IAP_AUDIENCE"),
        ({"AUTH": "platform"}, "IAP_AUDIENCE needs AUTH=iap: set it, or unset the audience"),
        ({"IAP_AUDIENCE": "https://x"}, "IAP_AUDIENCE must be set to an audience"),
    ],
)
def test_contradictory_settings_are_refused(environ: dict[str, str], sentence: str) -> None:
    """Otherwise somebody could believe that the service is behind the proxy when it isn't."""
    with pytest.raises(SettingsError, match=sentence):
        Settings.from_environment(ENVIRON | environ)
