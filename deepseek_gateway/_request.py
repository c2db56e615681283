"""What leaves for the gateway: pure functions from the request that the SDK built to the one that is sent.

The rules are those of Cloudflare's and DeepSeek's documentation, cited where they are used. `httpx` here is the library
that openai itself uses (httpx up to openai 2, httpx2 from openai 3 on); the classes are taken from the objects at hand.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from ._codes import REDACTED, Sent
from ._config import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig, Route

PLACEHOLDER = "key-stored-at-cloudflare"
"""What the SDK, which insists on an `api_key`, is given when there is none; no HTTP request ever carries it."""

_AUTHORIZATION = b"authorization"
_GATEWAY_TOKEN = b"cf-aig-authorization"
_CLOUDFLARE = b"cf-aig-"
_PLACEHOLDER_VALUE = f"Bearer {PLACEHOLDER}".encode()
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\s$")
# The SDK fills these from OPENAI_ORG_ID and OPENAI_PROJECT_ID; neither Cloudflare nor DeepSeek knows them.
_IDENTITY_NAMES = ("openai-organization", "openai-project")
_OPENAI_IDENTITY = frozenset(name.encode() for name in _IDENTITY_NAMES)
# What stands in for headers of the SDK's own that OPENAI_CUSTOM_HEADERS replaced.
_SDK_OWN = {b"accept": b"application/json", b"content-type": b"application/json", b"user-agent": b"OpenAI/Python"}

Headers = list[tuple[bytes, bytes]]

_NOTHING: frozenset[tuple[bytes, bytes]] = frozenset()


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
    path: bytes
    authorization: bytes | None
    added: tuple[tuple[bytes, bytes], ...]
    secrets: frozenset[bytes]
    key_is_stored: bool

    @classmethod
    def of(cls, config: GatewayConfig, base_url: httpx.URL) -> Destination:
        """Precompute what `to_gateway` compares with; `base_url` is the configuration's, parsed."""
        return cls(
            route=config.route,
            origin=_origin(base_url),
            path=base_url.raw_path,
            authorization=f"Bearer {config.bearer}".encode() if config.bearer else None,
            added=tuple((name.encode(), value.encode()) for name, value in config.headers.items()),
            secrets=frozenset(
                secret.encode() for secret in (PLACEHOLDER, config.api_key, config.gateway_token) if secret
            ),
            key_is_stored=config.api_key is None,
        )

    def covers(self, url: httpx.URL) -> bool:
        """Whether a URL lies under the base URL, by origin and by whole path segments."""
        if _origin(url) != self.origin or url.userinfo:
            return False
        path = url.raw_path.partition(b"?")[0]
        if not path.startswith(self.path) or path[len(self.path) : len(self.path) + 1] not in {b"", b"/"}:
            return False
        return not (b".." in path or b"%" in path) or not _climbs(path)


def to_gateway(
    request: httpx.Request, destination: Destination, ambient: frozenset[tuple[bytes, bytes]]
) -> httpx.Request:
    """Turn the SDK's request into the one that is sent; the SDK's own is left as it is.

    Under the base URL it gets Cloudflare's headers and the model name of the route, and loses the placeholder. To any
    other URL it carries what the caller gave for it, and neither the placeholder nor a credential of the configuration.
    Whatever the environment alone put there (`ambient`) is dropped in both cases.

    Args:
        request: The request as the SDK built it.
        destination: Where the client's own requests go, and with what.
        ambient: The headers that come from `OPENAI_*` variables, as pairs of lower-case name and value.

    Returns:
        A new request of the same class.

    Raises:
        RefusedRequestError: The model is not DeepSeek's and the route leads to DeepSeek only; or a credential that the
            caller gave cannot travel in a header.
    """
    headers = request.headers.raw
    if ambient:
        headers = _without_ambient(headers, request, destination, ambient)
    if not destination.covers(request.url):
        return _copy(request, _elsewhere(headers, request.url, destination))
    headers = _addressed(headers, destination)
    body = _loaded_body(request)
    if body and _value(headers, b"content-type").startswith(b"application/json"):
        rewritten = _with_model_of(body, destination.route)
        if rewritten is not body:
            headers = [(n, v) for n, v in headers if n.lower() != b"content-length"]
            return type(request)(
                request.method, request.url, headers=headers, extensions=request.extensions, content=rewritten
            )
    return _copy(request, headers)


def _copy(request: httpx.Request, headers: Headers) -> httpx.Request:
    """Make the same request with other headers; the body is shared, and read where it was."""
    copied = type(request)(
        request.method, request.url, headers=headers, extensions=request.extensions, stream=request.stream
    )
    if _loaded_body(request) is not None:
        copied.read()
    return copied


def model_of(request: httpx.Request) -> str | None:
    """Give the model that a request asks for, if its body is JSON in memory and names one."""
    body = _loaded_body(request)
    span = _model_span(body) if body else None
    return json.loads(body[slice(*span)]) if body and span else None


def sent_with(request: httpx.Request, destination: Destination) -> Sent:
    """Sum up a request as it was sent, for the explanation of an error."""
    attempts = request.headers.get("cf-aig-max-attempts", "")
    authorization = "authorization" in request.headers
    given = [
        request.headers.get(name, "").removeprefix("Bearer ") for name in ("authorization", "cf-aig-authorization")
    ]
    return Sent(
        method=request.method,
        route=destination.route,
        authorization=authorization,
        gateway_token=authorization if destination.route == "rest" else "cf-aig-authorization" in request.headers,
        key_is_stored=destination.key_is_stored,
        model=model_of(request),
        max_attempts=int(attempts) if attempts.isdecimal() else 1,
        secrets=tuple(filter(None, [*given, *(secret.decode() for secret in destination.secrets)])),
    )


def asks_to_stream(request: httpx.Request) -> bool:
    """Whether the body asks for a stream of events."""
    try:
        return json.loads(_loaded_body(request) or b"")["stream"] is True
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def redact(request: httpx.Request) -> None:
    """Blank out the credentials of a request that will stay on responses and exceptions, where they get pickled."""
    for name in ("authorization", "cf-aig-authorization"):
        if name in request.headers:
            request.headers[name] = REDACTED


def ambient_headers(environ: Mapping[str, str], explicit: Mapping[str, Any]) -> frozenset[tuple[bytes, bytes]]:
    """List the headers that the SDK takes from the environment, whatever the base URL.

    Args:
        environ: The environment, as the SDK sees it.
        explicit: The default headers that the caller gave himself; one that is equal stays.

    Returns:
        Pairs of lower-case name and value.
    """
    admin_key, *identity = map(environ.get, ("OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"))
    custom = environ.get("OPENAI_CUSTOM_HEADERS")
    if not (admin_key or custom or any(identity)):
        return _NOTHING
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


def _value(headers: Headers, name: bytes) -> bytes:
    return next((v for n, v in headers if n.lower() == name), b"")


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
        replaced[_AUTHORIZATION] = destination.authorization
    kept: Headers = []
    for name, value in headers:
        key = name.lower()
        if (key, value) not in ambient:
            kept.append((name, value))
        elif key in replaced:
            kept.append((name, replaced[key]))
    return kept


def _addressed(headers: Headers, destination: Destination) -> Headers:
    """Give the request the credentials of its route; one that the caller gave wins.

    The Cloudflare token travels in `cf-aig-authorization` alone and the DeepSeek key in `Authorization` alone: a token
    in both is forwarded to DeepSeek, and any `Authorization`, even an empty one, keeps Cloudflare from adding a stored
    key (Cloudflare docs: configuration/authentication, configuration/bring-your-own-keys). The rest route wants the
    token in `Authorization` and the gateway's name in a header (usage/rest-api).
    """
    kept: Headers = []
    ours: dict[bytes, tuple[bytes, bytes]] = {}
    for name, value in headers:
        key = name.lower()
        if key == _AUTHORIZATION or key.startswith(_CLOUDFLARE):
            # Old SDKs send two when the caller writes it in another case; his is the later one.
            ours[key] = (name, value)
        elif key not in _OPENAI_IDENTITY:
            kept.append((name, value))
    if ours.get(_AUTHORIZATION, (b"", b""))[1] == _PLACEHOLDER_VALUE:
        del ours[_AUTHORIZATION]
    for name, value in destination.added:
        ours.setdefault(name, (name, value))
    for key in (_AUTHORIZATION, _GATEWAY_TOKEN):
        if key in ours and _UNFIT.search(ours[key][1]):
            raise RefusedRequestError(
                f"The credential given for {key.decode()} ends in white space or holds a line break or another control "
                "character, which no header can carry; copy it again, in one piece.",
                code="unfit_credential",
            )
    return kept + list(ours.values())


def _elsewhere(headers: Headers, url: httpx.URL, destination: Destination) -> Headers:
    """Take everything of ours off a request to somebody else; what the caller gave for it stays.

    What is meant for a gateway goes to no other origin, whoever gave it: a copy of a client carries it there unasked.
    """
    same_origin = _origin(url) == destination.origin
    return [
        (name, value)
        for name, value in headers
        if destination.secrets.isdisjoint(re.split(rb"[\s,;=]+", value))
        and (same_origin or not name.lower().startswith(_CLOUDFLARE))
    ]


# The model as the first member, which is how the SDK writes it from 3.x on: found without reading the rest.
_LEADING_MODEL = re.compile(rb'\s*\{\s*"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_SLASHED_MODEL = re.compile(rb'"model"\s*:\s*"[^"/\\]*[/\\]')
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def _with_model_of(body: bytes, route: Route) -> bytes:
    """Give a JSON body the model name that its route wants; the same object when nothing is to be changed."""
    if route == "provider" and not _SLASHED_MODEL.search(body):
        return body  # nothing to take off: no need to look for the top-level one
    span = _model_span(body)
    if span is None:
        return body
    start, end = span
    model = json.loads(body[start:end])
    wanted = model_on(route, model)
    if wanted == model:
        return body
    return body[:start] + json.dumps(wanted).encode() + body[end:]


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
    if leading := _LEADING_MODEL.match(body):
        return leading.span(1)
    try:
        text = body.decode()
        found = _member_span(text, "model")
    except (ValueError, RecursionError):  # no JSON that can be read, or not UTF-8: the other end will say so
        return None
    if found is None or text[found[0]] != '"':
        return None
    return len(text[: found[0]].encode()), len(text[: found[1]].encode())


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
