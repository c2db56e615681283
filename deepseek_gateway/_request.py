"""What leaves for the gateway: headers and credentials."""

from __future__ import annotations

import os
import re
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from ._codes import CREDENTIAL, RequestFacts, credentials_in
from ._settings import OPENAI_VARIABLES, PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = tuple[Header, ...]
Ambient: TypeAlias = frozenset[Header]  # put there by the environment alone; the names are in lower case

_CREDENTIALS = (b"authorization", b"cf-aig-authorization")
_ACCESS = b"cf-access-"  # a token, or the two parts of a service token (Cloudflare docs: Access, service tokens)
# A credential with one of these could not be sent, or would be sent without its end.
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\s$")
# The SDK fills these from OPENAI_ORG_ID and OPENAI_PROJECT_ID, and describes the machine with the others.
_MACHINE = ("arch", "async", "lang", "os", "package-version", "runtime", "runtime-version")
_OPENAI_ONLY = {b"openai-organization", b"openai-project", *(f"x-stainless-{part}".encode() for part in _MACHINE)}
_AMBIENT_LINES = [(name, variable.header) for name, variable in OPENAI_VARIABLES.items() if variable.header]
# The values to restore when OPENAI_CUSTOM_HEADERS replaced a header of the SDK's own.
_SDK_OWN = {b"accept": b"application/json", b"content-type": b"application/json", b"user-agent": b"OpenAI/Python"}
_NOTHING: Ambient = frozenset()  # one for all clients
_SDK_AGENT = re.compile(rb"\w*OpenAI/Python")


@cache
def user_agent() -> bytes:
    """Give the user agent of this package."""
    try:
        return f"deepseek-gateway/{version('deepseek-gateway')}".encode()
    except PackageNotFoundError:  # a copy of the package inside another project
        return b"deepseek-gateway"


class RefusedRequestError(Exception):
    """A request that must not be sent. The message gives the reason and the remedy."""

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


class PreparedHeaders(NamedTuple):
    """The headers to send, to be copied, and what is known of them. Calls with equal headers share them."""

    headers: httpx.Headers
    is_json: bool
    has_length: bool
    credentials: tuple[str, ...]
    """The names of the credentials in the headers of the SDK's request."""


class Destination:
    """Where the requests of one client go, and with which headers."""

    __slots__ = (
        "_ambient",
        "_base_url",
        "_explicit_headers",
        "_host",
        "_to_gateway",
        "config",
        "merge_pause",
        "schemas",
    )

    def __init__(
        self,
        config: GatewayConfig,
        base_url: httpx.URL,
        explicit_headers: Mapping[str, Any],
        *,
        merge_pause: float | None,
    ) -> None:
        self.config = config
        self.merge_pause = merge_pause  # None, or the seconds between two reads of a stream whose chunks are merged
        self._host = base_url.netloc
        self._base_url = str(base_url)
        self._explicit_headers = dict(explicit_headers)
        self._ambient = ambient_headers(os.environ, self._explicit_headers)
        self._to_gateway = lru_cache(maxsize=16)(self._headers_to_gateway)
        self.schemas = count()  # of the requests with a JSON schema

    def below(self, url: httpx.URL) -> str | None:
        """Give the path and query of a URL below the base URL, or None if it does not lie there.

        It does if origin and whole path segments agree. A path that would lead out again once it is resolved does not.
        """
        text = str(url).partition("#")[0]
        below = text[len(self._base_url) :]
        if not text.startswith(self._base_url) or below[:1] not in {"", "/", "?"}:
            return None
        if ".." in text or "%" in text:
            path = unquote_to_bytes(below.partition("?")[0])
            return None if b".." in re.split(rb"[/\\]", path) else below
        return below

    def headers(self, request: httpx.Request, *, covered: bool) -> PreparedHeaders:
        """Give the headers to send. `Content-Length` is blank, and set for each call."""
        raw = request.headers.raw
        given = tuple([(each[0], b"") if each[0] == b"Content-Length" else each for each in raw])
        if covered:
            return self._to_gateway(type(request.headers), given)
        elsewhere = headers_to_elsewhere(self.config, given, self._ambient_now(), request.url)
        return _prepared(type(request.headers)(elsewhere), given)

    def _headers_to_gateway(self, kind: type[httpx.Headers], given: Headers) -> PreparedHeaders:
        return _prepared(kind(headers_to_gateway(self.config, given, self._ambient_now(), self._host)), given)

    def _ambient_now(self) -> Ambient:
        """Read the environment again, as with_options() makes the SDK do. What is new there makes new headers."""
        return self._ambient | ambient_headers(os.environ, self._explicit_headers)


def _prepared(headers: httpx.Headers, given: Headers) -> PreparedHeaders:
    is_json = headers.get("Content-Type", "").startswith("application/json")
    return PreparedHeaders(headers, is_json, "Content-Length" in headers, credentials_in(given))


def headers_to_gateway(config: GatewayConfig, given: Headers, ambient: Ambient, host: bytes) -> Headers:
    """Say with which headers a request under the base URL is sent. Nothing of Cloudflare's goes to DeepSeek itself.

    The Cloudflare token travels in `cf-aig-authorization` only and the DeepSeek key in `Authorization` only. Cloudflare
    forwards a token that is in both to DeepSeek, and any `Authorization`, even an empty one, keeps Cloudflare from
    adding a stored key (Cloudflare docs: configuration/authentication, configuration/bring-your-own-keys). The rest
    route takes the token in `Authorization` and the gateway's name in a header (usage/rest-api).

    The SDK's own user agent is replaced, because Cloudflare's rule against AI bots refuses it on custom domains
    (observed). What the caller gave wins. A credential that does not fit into a header is a `RefusedRequestError`.
    """
    others: list[Header] = []
    token = (config.gateway_token or "").encode()
    for_gateway: dict[bytes, Header] = {}
    for name, value in _without_ambient(config, given, ambient, host):
        key = name.lower()
        if config.route == "direct" and (key.startswith(b"cf-") or (token and token in value)):
            continue
        if key == b"authorization" or key.startswith(b"cf-aig-"):
            # Old SDKs send a header twice when the caller writes its name in another case. The last is the caller's.
            for_gateway[key] = name, value
        elif key == b"user-agent" and _SDK_AGENT.match(value):
            others.append((name, user_agent()))
        elif key not in _OPENAI_ONLY:
            others.append((name, value))
    for key in _CREDENTIALS:
        if key in for_gateway and _UNFIT.search(for_gateway[key][1]):
            problem = f"The credential given for {key.decode()} holds a control character or ends in white space, which"
            remedy = "no header can carry. Copy the credential again, in one piece."
            raise RefusedRequestError(f"{problem} {remedy}", code="unfit_credential")
    if for_gateway.get(b"authorization", (b"", b""))[1] == f"Bearer {PLACEHOLDER}".encode():
        del for_gateway[b"authorization"]
    added = [(name.encode(), text.encode()) for name, text in config.headers.items()]
    return (*others, *({name: (name, value) for name, value in added} | for_gateway).values())


def headers_to_elsewhere(config: GatewayConfig, given: Headers, ambient: Ambient, url: httpx.URL) -> Headers:
    """Say with which headers a request to any other URL is sent: those that the caller gave for it.

    Cloudflare's headers never go to another origin, because a copy of a client would carry them there unasked.
    """
    own = type(url)(config.base_url)
    same_origin = (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)
    secrets = {secret.encode() for secret in (PLACEHOLDER, config.api_key, config.gateway_token) if secret}
    return tuple(
        (name, value)
        for name, value in _without_ambient(config, given, ambient, url.netloc)
        if secrets.isdisjoint(re.split(rb"[\s,;=]+", value))
        and (same_origin or not name.lower().startswith((b"cf-aig-", _ACCESS)))
    )


def _without_ambient(config: GatewayConfig, given: Headers, ambient: Ambient, host: bytes) -> Iterator[Header]:
    """Undo what `OPENAI_*` variables did to the headers, and restore what they replaced."""
    replaced = _SDK_OWN | {b"host": host}
    if config.bearer:
        replaced[b"authorization"] = f"Bearer {config.bearer}".encode()
    for name, value in given:
        key = name.lower()
        if (key, value) not in ambient:
            yield name, value
        elif key in replaced:
            yield name, replaced[key]


def ambient_headers(environ: Mapping[str, str], explicit: Mapping[str, Any]) -> Ambient:
    """List the headers that the SDK takes from `OPENAI_*` variables, except those that the caller gave as well."""
    lines: list[str] = []
    for variable, template in _AMBIENT_LINES:
        if value := environ.get(variable):
            lines += template.format(value).split("\n")
    if not lines:
        return _NOTHING
    parts = (line.partition(":") for line in lines)
    found = {(name.strip().lower(), value.strip()) for name, colon, value in parts if colon}
    found -= {(name.lower(), value) for name, value in explicit.items()}
    return frozenset((name.encode(), value.encode()) for name, value in found)


def whole_number(text: str | None) -> int | None:
    """Read a number of a header. Python refuses to read one of several thousand digits."""
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text) else None


def loaded_body(request: httpx.Request) -> bytes | None:
    try:
        return request.content
    except RuntimeError:  # RequestNotRead: an upload that streams stays unread
        return None


def request_facts(request: httpx.Request, config: GatewayConfig, model: str | None) -> RequestFacts:
    """Say what is known of a request, as it was sent with its credentials. Nothing else makes `RequestFacts`."""
    headers = request.headers
    authorization = "authorization" in headers
    given = [text.removeprefix("Bearer ") for name, text in headers.items() if CREDENTIAL.fullmatch(name.encode())]
    return RequestFacts(
        method=request.method,
        route=config.route,
        authorization=authorization,
        gateway_token=authorization if config.route == "rest" else "cf-aig-authorization" in headers,
        key_is_stored=config.route == "rest" or config.api_key is None,
        model=model,
        max_attempts=whole_number(headers.get("cf-aig-max-attempts")) or 1,
        path=request.url.path,
        secrets=tuple(filter(None, [*given, config.api_key, config.gateway_token])),
    )
