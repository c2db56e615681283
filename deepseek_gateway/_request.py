"""What leaves for the gateway: pure functions from the request that the SDK built to the one that is sent.

The rules are those of Cloudflare's and DeepSeek's documentation, cited where they are used. `httpx` here is the library
that openai itself uses (httpx up to openai 2, httpx2 from openai 3 on); the classes are taken from the objects at hand.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from ._codes import REDACTED, RequestFacts
from ._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig
    from ._settings import Route

PLACEHOLDER = "key-stored-at-cloudflare"
"""What the SDK, which insists on an `api_key`, is given when there is none; no HTTP request ever carries it."""

_AUTHORIZATION = b"authorization"
_CLOUDFLARE = b"cf-aig-"
_LENGTH = b"Content-Length"
_PLACEHOLDER_VALUE = f"Bearer {PLACEHOLDER}"
_CREDENTIALS = ("authorization", "cf-aig-authorization")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|\s$")
# The SDK fills these from OPENAI_ORG_ID and OPENAI_PROJECT_ID.
_IDENTITY_NAMES = ("openai-organization", "openai-project")
# It tells OpenAI these of the machine it runs on, with every request.
_MACHINE_NAMES = tuple(
    f"x-stainless-{what}" for what in ("arch", "async", "lang", "os", "package-version", "runtime", "runtime-version")
)
_OPENAI_ONLY = frozenset(name.encode() for name in _IDENTITY_NAMES + _MACHINE_NAMES)
# What stands in for headers of the SDK's own that OPENAI_CUSTOM_HEADERS replaced.
_SDK_OWN = {b"accept": b"application/json", b"content-type": b"application/json", b"user-agent": b"OpenAI/Python"}

Headers = list[tuple[bytes, bytes]]

_AMBIENT = ("OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")


class RefusedRequestError(Exception):
    """The request must not be sent; the message says why, and what to do."""

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        """Keep what goes into the error that the caller gets."""
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True, repr=False)
class Destination:
    """A configuration in the form in which requests are compared with it; made once for each HTTP client."""

    route: Route
    origin: tuple[str, str, int | None]
    base_url: str
    path: bytes
    authorization: str | None
    added: tuple[tuple[str, str], ...]
    secrets: frozenset[bytes]
    key_is_stored: bool

    @classmethod
    def of(cls, config: GatewayConfig, base_url: httpx.URL) -> Destination:
        """Precompute what `to_gateway` compares with; `base_url` is the configuration's, parsed."""
        return cls(
            route=config.route,
            origin=_origin(base_url),
            base_url=str(base_url),
            path=base_url.raw_path,
            authorization=f"Bearer {config.bearer}" if config.bearer else None,
            added=tuple(config.headers.items()),
            secrets=frozenset(
                secret.encode() for secret in (PLACEHOLDER, config.api_key, config.gateway_token) if secret
            ),
            key_is_stored=config.api_key is None,
        )

    def covers(self, url: httpx.URL) -> bool:
        """Whether a URL lies under the base URL, by origin and by whole path segments."""
        text, end = str(url), len(self.base_url)
        if not text.startswith(self.base_url) or text[end : end + 1] not in "/?#":  # which nothing at all is in
            return False
        return not (".." in text or "%" in text) or not _climbs(url.raw_path.partition(b"?")[0])


@dataclass(slots=True, repr=False)
class Outgoing:
    """How a request is to be sent: with these headers, and with this body where it is not the request's own.

    It shows neither: tools that report errors write down the local variables of `send()`.
    """

    headers: httpx.Headers
    body: bytes | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Recalled:
    """The headers of one request and what became of them: those of the next one are mostly the same.

    Left out is the length of the body, which the HTTP library writes last.
    """

    given: Headers
    sent: httpx.Headers
    credentials: tuple[str, ...]

    @classmethod
    def of(cls, request: httpx.Request, sent: httpx.Headers) -> Recalled | None:
        """Keep copies, because the caller's hooks may change what is sent; nothing, if there is no body."""
        *given, (name, _) = request.headers.raw
        if name != _LENGTH:
            return None
        credentials = tuple(name for name in _CREDENTIALS if name in request.headers)
        return cls(given, type(sent)(sent, encoding=sent.encoding), credentials)

    def headers_for(self, request: httpx.Request) -> httpx.Headers | None:
        """Give the headers to send, if the request has those that are recalled."""
        given = request.headers.raw
        name, length = given.pop()
        if name != _LENGTH or given != self.given:
            return None
        headers = type(self.sent)(self.sent, encoding=self.sent.encoding)  # untold, the encoding is guessed
        headers["Content-Length"] = length.decode()
        return headers


def to_gateway(
    request: httpx.Request,
    destination: Destination,
    ambient: frozenset[tuple[bytes, bytes]],
    recalled: httpx.Headers | None = None,
) -> Outgoing:
    """Say how a request of the SDK to a URL under the base URL is to be sent; the request is left as it is.

    It gets Cloudflare's headers and the model name of the route, and loses the placeholder, what only OpenAI has a use
    for, and whatever the environment alone put there (`ambient`).

    Args:
        request: The request as the SDK built it.
        destination: Where the client's own requests go, and with what.
        ambient: The headers that come from `OPENAI_*` variables, as pairs of lower-case name and value.
        recalled: The headers to send, if they are known already.

    Returns:
        The headers to send, and the body to send where it is not the request's own.

    Raises:
        RefusedRequestError: The model is not DeepSeek's and the route leads to DeepSeek only; or a credential that the
            caller gave cannot travel in a header.
    """
    headers = _addressed(request, destination, ambient) if recalled is None else recalled
    body = _loaded_body(request)
    if not body or (destination.route == "provider" and _BARE_MODEL.match(body)):
        return Outgoing(headers)
    rewritten = _with_model_of(body, destination.route)
    if rewritten is body or not headers.get("content-type", "").startswith("application/json"):
        return Outgoing(headers)
    headers["content-length"] = str(len(rewritten))
    return Outgoing(headers, rewritten)


def to_elsewhere(request: httpx.Request, destination: Destination, ambient: frozenset[tuple[bytes, bytes]]) -> Outgoing:
    """Give the headers with which a request for any other URL is to be sent.

    They are those that the caller gave for it, and neither the placeholder nor a credential of the configuration, nor
    what the environment alone put there. What is meant for a gateway goes to no other origin, whoever gave it: a copy
    of a client carries it there unasked.
    """
    headers = _without_ambient(request.headers.raw, request, destination, ambient)
    same_origin = _origin(request.url) == destination.origin
    kept = [
        (name, value)
        for name, value in headers
        if destination.secrets.isdisjoint(re.split(rb"[\s,;=]+", value))
        and (same_origin or not name.lower().startswith(_CLOUDFLARE))
    ]
    return Outgoing(type(request.headers)(kept))


def model_of(request: httpx.Request) -> str | None:
    """Give the model that a request asks for, if its body is JSON in memory and names one."""
    body = _loaded_body(request)
    span = _model_span(body) if body else None
    return json.loads(body[slice(*span)]) if body and span else None


def sent_with(request: httpx.Request, outgoing: Outgoing, destination: Destination) -> RequestFacts:
    """Sum up what was sent, for the explanation of an error: a request, and the headers that it had then."""
    headers = outgoing.headers
    attempts = headers.get("cf-aig-max-attempts", "")
    authorization = "authorization" in headers
    given = [headers.get(name, "").removeprefix("Bearer ") for name in _CREDENTIALS]
    return RequestFacts(
        method=request.method,
        route=destination.route,
        authorization=authorization,
        gateway_token=authorization if destination.route == "rest" else "cf-aig-authorization" in headers,
        key_is_stored=destination.key_is_stored,
        model=model_of(request),
        max_attempts=int(attempts) if attempts.isdecimal() else 1,
        secrets=tuple(filter(None, [*given, *(secret.decode() for secret in destination.secrets)])),
    )


def request_facts(request: httpx.Request, config: GatewayConfig) -> RequestFacts:
    """Say what is known of a request that was sent, by the request itself: the one way to make `RequestFacts`.

    Args:
        request: The request as it was sent, with its credentials: an event hook of the HTTP client sees it.
        config: The settings of the client that sent it.

    Returns:
        What remedies depend on.
    """
    headers = request.headers
    authorization = "authorization" in headers
    attempts = headers.get("cf-aig-max-attempts", "")
    given = [headers.get(name, "").removeprefix("Bearer ") for name in _CREDENTIALS]
    return RequestFacts(
        method=request.method,
        route=config.route,
        authorization=authorization,
        gateway_token=authorization if config.route == "rest" else "cf-aig-authorization" in headers,
        key_is_stored=config.route == "rest" or config.api_key is None,
        model=model_of(request),
        max_attempts=int(attempts) if attempts.isdecimal() else 1,
        secrets=tuple(filter(None, [*given, config.api_key, config.gateway_token])),
    )


def asks_to_stream(request: httpx.Request) -> bool:
    """Whether the body asks for a stream of events."""
    try:
        return json.loads(_loaded_body(request) or b"")["stream"] is True
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def redact(headers: httpx.Headers, names: Iterable[str] = ()) -> None:
    """Blank out the credentials in headers that will stay on responses and exceptions, where they get pickled."""
    for name in names or [name for name in _CREDENTIALS if name in headers]:
        headers[name] = REDACTED


def ambient_headers(environ: Mapping[str, str], explicit: Mapping[str, Any]) -> frozenset[tuple[bytes, bytes]]:
    """List the headers that the SDK takes from the environment, whatever the base URL.

    Args:
        environ: The environment, as the SDK sees it.
        explicit: The default headers that the caller gave himself; one that is equal stays.

    Returns:
        Pairs of lower-case name and value.
    """
    admin_key, custom, *identity = map(environ.get, _AMBIENT)
    found = [("authorization", f"Bearer {admin_key}")] if admin_key else []
    found += [(name, value) for name, value in zip(_IDENTITY_NAMES, identity, strict=True) if value]
    for line in (custom or "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            found.append((name.strip(), value.strip()))
    own = {(name.lower(), value) for name, value in explicit.items()}
    return frozenset((n.lower().encode(), v.encode()) for n, v in found if (n.lower(), v) not in own)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _climbs(path: bytes) -> bool:
    """Whether a path leaves its own beginning by `..`, however that is written, once somebody resolves it."""
    segments = re.split(rb"[/\\]", unquote_to_bytes(path))
    return b".." in segments


def _loaded_body(request: httpx.Request) -> bytes | None:
    """Give the body if it is in memory; an upload that streams is passed on unread."""
    try:
        return request.content
    except RuntimeError:  # RequestNotRead, in httpx and httpx2 alike
        return None


def _without_ambient(
    headers: Headers, request: httpx.Request, destination: Destination, ambient: frozenset[tuple[bytes, bytes]]
) -> Headers:
    """Undo what `OPENAI_*` variables did to the headers; what they replaced comes back."""
    replaced = _SDK_OWN | {b"host": request.url.netloc}
    if destination.authorization:  # to anybody else it will not go
        replaced[_AUTHORIZATION] = destination.authorization.encode()
    kept: Headers = []
    for name, value in headers:
        key = name.lower()
        if (key, value) not in ambient:
            kept.append((name, value))
        elif key in replaced:
            kept.append((name, replaced[key]))
    return kept


def _addressed(
    request: httpx.Request, destination: Destination, ambient: frozenset[tuple[bytes, bytes]]
) -> httpx.Headers:
    """Give the request the credentials of its route; one that the caller gave wins.

    The Cloudflare token travels in `cf-aig-authorization` alone and the DeepSeek key in `Authorization` alone: a token
    in both is forwarded to DeepSeek, and any `Authorization`, even an empty one, keeps Cloudflare from adding a stored
    key (Cloudflare docs: configuration/authentication, configuration/bring-your-own-keys). The rest route wants the
    token in `Authorization` and the gateway's name in a header (usage/rest-api).
    """
    given = _without_ambient(request.headers.raw, request, destination, ambient)
    headers = type(request.headers)(_settled(given))
    for name in _CREDENTIALS:
        _refuse_unfit(name, headers.get(name, ""))
    if headers.get("authorization") == _PLACEHOLDER_VALUE:
        del headers["authorization"]
    for name, value in destination.added:
        headers.setdefault(name, value)
    return headers


def _settled(headers: Headers) -> Headers:
    """Drop what neither Cloudflare nor DeepSeek knows, and of a credential or option given twice all but the last."""
    kept: Headers = []
    last: dict[bytes, tuple[bytes, bytes]] = {}
    for header in headers:
        key = header[0].lower()
        if key == _AUTHORIZATION or key.startswith(_CLOUDFLARE):
            # Old SDKs send two when the caller writes it in another case; his is the later one.
            last[key] = header
        elif key not in _OPENAI_ONLY:
            kept.append(header)
    return kept + list(last.values())


def _refuse_unfit(name: str, credential: str) -> None:
    """Raise for a credential of the caller's that would fail with a message that shows it, or be sent cut."""
    if _UNFIT.search(credential):
        raise RefusedRequestError(
            f"The credential given for {name} ends in white space or holds a line break or another control character, "
            "which no header can carry; copy it again, in one piece.",
            code="unfit_credential",
        )


# The model as the first member, which is how the SDK writes it from 3.x on: found without reading the rest.
_LEADING_MODEL = re.compile(rb'\s*\{\s*"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_BARE_MODEL = re.compile(rb'\{"model":"[^"/\\]*"')  # likewise, with nothing to take off
_NAMED_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_TRAILING_TRIES, _TRAILING_BYTES = 8, 65_536  # beyond, a walk over the whole body is as good
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def _with_model_of(body: bytes, route: Route) -> bytes:
    """Give a JSON body the model name that its route wants; the same object when nothing is to be changed."""
    span = _model_span(body)
    if span is None:
        return body
    start, end = span
    written = body[start:end]
    if route == "provider" and b"/" not in written and b"\\" not in written:
        return body
    model = json.loads(written)
    wanted = model_on(route, model)
    if wanted == model:
        return body
    rest = memoryview(body)  # a slice of it is no copy
    return b"".join((rest[:start], json.dumps(wanted).encode(), rest[end:]))


def model_on(route: Route, model: str) -> str:
    """Give the name by which a route knows a model.

    DeepSeek refuses a prefixed name, and the provider route passes names on as they are; compat and rest tell the
    providers apart by the prefix (Cloudflare docs: usage/providers/deepseek, usage/chat-completion). Names themselves
    are not checked: new ones appear every quarter.

    Args:
        route: The route that the request takes.
        model: The name as the caller wrote it, with or without `deepseek/`.

    Returns:
        The bare name on the provider route; elsewhere the name with a prefix, as it is if it has one.

    Raises:
        RefusedRequestError: A dynamic route or another provider's model was asked for on the provider route.
    """
    if route != "provider":
        return model if "/" in model or not model else f"deepseek/{model}"
    bare = model.removeprefix("deepseek/")
    if "/" not in bare:
        return bare
    kind, routes = ("dynamic route", "compat") if bare.startswith("dynamic/") else ("model", "compat or rest")
    raise RefusedRequestError(
        f"The {kind} {model!r} cannot be reached on the provider route, which leads to DeepSeek only. Use the {routes} "
        f"route: create_client(route='compat') or {VARIABLE['route']}=compat.",
        code="wrong_route",
        param="model",
    )


def _model_span(body: bytes) -> tuple[int, int] | None:
    """Find the value of the top-level member `model`, if it is a string; members of inner objects do not count."""
    if found := _LEADING_MODEL.match(body) or _trailing_model(body):
        return found.span(1)
    try:
        text = body.decode()
        span = _member_span(text, "model")
    except (ValueError, RecursionError):  # no JSON that can be read, or not UTF-8: the other end will say so
        return None
    if span is None or text[span[0]] != '"':
        return None
    return len(text[: span[0]].encode()), len(text[: span[1]].encode())


def _trailing_model(body: bytes) -> re.Match[bytes] | None:
    """Find `model` where openai 1 and 2 write it, behind the messages, without reading those.

    In JSON no quotation mark stands unescaped inside a string, so these bytes are a name; and when what follows from
    there on, with a brace before it, is an object to the end of the body, the name is the outermost object's.
    """
    end = len(body)
    for _ in range(_TRAILING_TRIES):
        end = body.rfind(b'"model"', 0, end)
        if end < 1 or len(body) - end > _TRAILING_BYTES:
            return None
        found = _NAMED_MODEL.match(body, end)
        if body[end - 1 : end] == b"\\" or found is None:
            continue
        with suppress(ValueError, RecursionError):
            json.loads(b"{" + body[end:])
            return found
    return None


def _member_span(text: str, wanted: str) -> tuple[int, int] | None:
    """Walk over the members of a JSON object and give the place of one's value; of equal names the last counts."""
    decoder = json.JSONDecoder()
    found = None

    def skip(position: int) -> int:
        match = _WHITE_SPACE.match(text, position)
        return match.end() if match else position

    position = skip(0)
    if text[position : position + 1] != "{":
        return None
    while text[position : position + 1] in {"{", ","}:
        position = skip(position + 1)
        if text[position : position + 1] == "}":
            break
        name, position = decoder.raw_decode(text, position)
        start = skip(skip(position) + 1)  # past the colon
        _, position = decoder.raw_decode(text, start)
        if name == wanted:
            found = start, position
        position = skip(position)
    return found
