"""One address where a registry, or a mirror of it, answers: who we are, what it says, when to try again.

Without credentials, with a Bearer token of the token service that it names, or Basic. Both go only to the
registry and to its token service, and never in the clear unless that host is on loopback or configured as
insecure.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from hawse_agent.distribution.connections import Body, Connections, Response
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.documents import MAX_JSON, parse_json
from hawse_agent.errors import HawseError, ProtocolError

Transient = (OSError, http.client.HTTPException)
"""What a connection raises."""

_ATTEMPTS = 5
_PASSING = (408, 500, 502, 503, 504)
_MOST_WAITED = 60.0
"""Seconds that a registry may have us wait, in all, when it asks for less haste."""
_MOST_ASKED = 20
"""How often it may do so."""
_TOKEN_SECONDS = 60.0
"""How long a token is good when the service does not say: so it is specified."""
_MARGIN = 5.0
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Refused(Exception):
    """An answer of 400 or more. `said` is the registry's own words: `manifest unknown: manifest unknown`."""

    def __init__(self, status: int, said: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {said}".rstrip())
        self.status = status
        self.said = said
        self.retry_after = retry_after


class Tokens:
    """Bearer tokens by service, scope and person, until they expire. In memory alone, for all requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], tuple[str, float]] = {}

    def get(self, key: tuple[str, ...]) -> str | None:
        now = time.monotonic()
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if known[1] > now}
            known = self._known.get(key)
        return known[0] if known else None

    def put(self, key: tuple[str, ...], token: str, seconds: float) -> None:
        with self._lock:
            self._known[key] = (token, time.monotonic() + seconds - _MARGIN)

    def forget(self, token: str) -> None:
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if known[0] != token}


class Patience:
    """How often one thing is tried: some times in a row without any progress, and a limit for what is asked
    of us."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._failures = 0
        self._asked = 0
        self._waited = 0.0

    def progressed(self) -> None:
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Waits until it may be tried again; raises `error` when it may not."""
        self._failures += 1
        if isinstance(error, Refused) and error.retry_after is not None and error.status in (429, 503):
            wait = max(error.retry_after, _pause(self._failures))
            self._asked += 1
            self._waited += wait
            if self._asked >= _MOST_ASKED or self._waited > _MOST_WAITED:
                raise error
            self._endpoint.connections.cancel.pause(wait)
        elif self._failures >= _ATTEMPTS or not self._passes(error):
            raise error
        else:
            self._endpoint.connections.cancel.pause(_pause(self._failures))

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, Refused):
            return error.status in _PASSING
        if isinstance(error, ssl.SSLCertVerificationError | socket.gaierror):
            return False
        return self._endpoint.reached


class Endpoint:
    """Used by several threads."""

    def __init__(
        self,
        connections: Connections,
        tokens: Tokens,
        *,
        address: str,
        path: str = "",
        schemes: Sequence[str] = (),
        credentials: Credentials = NOBODY,
        scopes: Sequence[str] = (),
    ) -> None:
        self.connections = connections
        self.address = address
        self.credentials = credentials
        self.reached = False
        """It has answered, so that a failure now is a passing one."""
        self._tokens = tokens
        self._path = path.rstrip("/")
        self._schemes = list(schemes or connections.trust.schemes(address))
        self._scopes = tuple(scopes)
        self._lock = threading.Lock()
        self._authorization = ""
        self._offline = False
        self.identity_token = ""
        """A refresh token that the token service gave for the asking (`log_in`)."""

    def url(self, path: str) -> str:
        """Of a path below it. A full URL, where it has sent us, stays; but a registry behind a proxy often
        does not know that it is reached by https. Raises ProtocolError for another host in the clear."""
        if "://" not in path:
            return f"{self._schemes[0]}://{self.address}{self._path}{path}"
        target = urllib.parse.urlsplit(path)
        if target.netloc == self.address:
            return target._replace(scheme=self._schemes[0]).geturl()
        if target.scheme != "https" and not self.connections.trust.is_insecure(target.netloc):
            raise ProtocolError(f"{self.address} sends us to {target.scheme}://{target.netloc}")
        return path

    @contextmanager
    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Iterator[Response]:
        """The answer. Authenticates when asked for it. Raises Refused for a status of 400 or more, OSError,
        HTTPException; ProtocolError, Stopped."""
        used = self._authorization
        with self._sent(method, path, headers or {}, body, used) as response:
            if response.status != 401:
                _raise_refused(response)
                yield response
                return
            challenges = response.headers.get_all("WWW-Authenticate") or []
            refused = _refused(response)
        with self._lock:
            if self._authorization == used:  # no other thread has got a new one meanwhile
                self._authorization = self._authenticate(challenges, used, refused)
        with self._sent(method, path, headers or {}, body, self._authorization) as response:
            _raise_refused(response)
            yield response

    def log_in(self, path: str) -> str:
        """Proves the credentials; gives a refresh token that may stand for the password, or "". Raises as
        `request`."""
        self._offline = True
        with self.request("GET", path) as response:
            response.read(MAX_JSON)
        return self.identity_token

    @contextmanager
    def _sent(
        self, method: str, path: str, headers: Mapping[str, str], body: Body | None, authorization: str
    ) -> Iterator[Response]:
        """By https, and where plain http is allowed by that when https is not spoken."""
        with ExitStack() as stack:
            while True:
                tried = self._schemes[0]
                url = self.url(path)
                # What it has sent us elsewhere for is not its own to know who we are.
                own = urllib.parse.urlsplit(url).netloc == self.address and authorization
                sent = {**headers, "Authorization": authorization} if own else headers
                try:
                    response = stack.enter_context(self.connections.request(method, url, sent, body))
                    break
                except Transient:
                    with self._lock:
                        if tried == self._schemes[0]:  # no other thread has found it out meanwhile
                            if self.reached or len(self._schemes) == 1:
                                raise
                            self._schemes = self._schemes[1:]
            self.reached = True
            yield response

    # -- authentication --------------------------------------------------------------------------

    def _authenticate(self, challenges: Sequence[str], refused_one: str, refused: Refused) -> str:
        """The Authorization header that answers the registry's challenge."""
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                self._tokens.forget(refused_one.removeprefix("Bearer "))
                return f"Bearer {self._token(dict(_PARAMETER.findall(rest)), refused)}"
        if any(challenge.lower().startswith("basic") for challenge in challenges):
            if not self.credentials.username:
                raise Refused(401, "no basic auth credentials")
            return self.credentials.basic
        if not challenges:
            raise refused
        known = ", ".join(challenge.partition(" ")[0] for challenge in challenges)
        raise ProtocolError(f"{self.address} asks for an authentication that is not known: {known}")

    def _token(self, challenge: Mapping[str, str], refused: Refused) -> str:
        person = self.credentials
        if person.registry_token:
            if self._authorization == f"Bearer {person.registry_token}":
                raise refused
            return person.registry_token
        realm, service = challenge.get("realm", ""), challenge.get("service", "")
        target = urllib.parse.urlsplit(realm)
        if target.scheme != "https" and not (
            target.scheme == "http" and self.connections.trust.is_insecure(target.netloc)
        ):
            raise ProtocolError(f"{self.address} names a token service that is not https: {realm!r}")
        scopes = list(dict.fromkeys([*self._scopes, *challenge.get("scope", "").split()]))
        key = (realm, service, " ".join(scopes), person.fingerprint)
        if not self._offline and (known := self._tokens.get(key)):
            return known
        answer = self._asked(realm, service, scopes)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise ProtocolError(f"{target.hostname} sent no token")
        if self._offline and isinstance(refresh := answer.get("refresh_token"), str):
            self.identity_token = refresh
        seconds = answer.get("expires_in")
        self._tokens.put(
            key, token, float(seconds) if isinstance(seconds, int | float) and seconds > 0 else _TOKEN_SECONDS
        )
        return token

    def _asked(self, realm: str, service: str, scopes: Sequence[str]) -> dict[str, Any]:
        """The token service's answer: by GET with Basic, or for a refresh token by POST as OAuth 2 has it."""
        person = self.credentials
        query = [("service", service)] if service else []
        if person.identity_token:
            form = [
                *query,
                ("grant_type", "refresh_token"),
                ("refresh_token", person.identity_token),
                ("client_id", "hawse"),
                *([("scope", " ".join(scopes))] if scopes else []),
            ]
            data = urllib.parse.urlencode(form).encode()
            method, url, body = "POST", realm, Body(open=lambda: [data], size=len(data))
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        else:
            query += [("scope", scope) for scope in scopes]
            if self._offline:
                query += [("offline_token", "true"), ("client_id", "hawse")]
            if person.username:
                query.append(("account", person.username))
            joint = "&" if urllib.parse.urlsplit(realm).query else "?"
            method, url, body = "GET", f"{realm}{joint}{urllib.parse.urlencode(query)}", None
            headers = {"Authorization": person.basic} if person.username else {}
        with self.connections.request(method, url, headers, body) as response:
            _raise_refused(response)
            return parse_json(
                response.read(MAX_JSON), f"the token of {urllib.parse.urlsplit(realm).hostname}"
            )


def reason(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _raise_refused(response: Response) -> None:
    if response.status >= 400:
        raise _refused(response)


def _refused(response: Response) -> Refused:
    return Refused(response.status, _said(response), _retry_after(response.headers.get("Retry-After", "")))


def _said(response: Response) -> str:
    """`code: message` as Docker writes it; a token service may have only `details`."""
    try:
        document = json.loads(response.read(MAX_JSON))
        errors = document.get("errors")
        if not errors:
            return str(document.get("details") or document.get("message") or document.get("error") or "")
        code, message = str(errors[0].get("code") or ""), str(errors[0].get("message") or "")
        return ": ".join(part for part in (code.lower().replace("_", " "), message) if part)
    except (ValueError, LookupError, TypeError, AttributeError, HawseError, *Transient):
        return ""  # a proxy's page in HTML, or nothing


def _retry_after(text: str) -> float | None:
    """Seconds, or a date."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _pause(failures: int) -> float:
    return float(min(0.2 * 2**failures, 5))
