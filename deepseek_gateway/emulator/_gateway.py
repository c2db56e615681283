"""The emulated AI Gateway: which URL leads where, who may pass, with which key, and what it says when nobody may.

One function, `Gateway.answer()`, takes a request through the gateway in the order in which the gateway itself works:
locate, authenticate, choose credentials, translate the model name, forward, label the answer.
"""

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

from starlette.datastructures import Headers

from deepseek_gateway.emulator._answers import CREATED, digest
from deepseek_gateway.emulator._deepseek import (
    MODELS,
    RETIRED,
    STATUS_ERRORS,
    DeepSeek,
    DeepSeekError,
    model_entry,
)
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply, json_reply, mapping, to_json

_BAD_FORMAT = "Chat completion bad format"


Pairs = tuple[tuple[str, str], ...]
Passage = tuple[ReceivedRequest, Pairs]
Fault = TypeVar("Fault", "GatewayError", DeepSeekError)


class Documented(NamedTuple):
    """A gateway error as Cloudflare documents it, or as it was observed."""

    status: int
    message: str


# Codes 2001 to 2045 are the gateway host's (observed; Cloudflare docs: features/guardrails, features/dlp,
# features/spend-limits). No text of 2018 and 7013 is known; the status of 2029 and 2030 rests on one observation.
# 7001, 7003 and 10000 are those of api.cloudflare.com, 7000 is its usual answer to an unknown path.
CODES: Mapping[int, Documented] = {
    2001: Documented(400, "Please configure AI Gateway in the Cloudflare dashboard"),
    2003: Documented(429, "Rate limited"),
    2005: Documented(400, "Failed to get response from provider"),
    2008: Documented(400, "Invalid provider"),
    2009: Documented(401, "Unauthorized"),
    2016: Documented(424, "Prompt blocked due to security configurations"),
    2017: Documented(424, "Response blocked due to security configurations"),
    2018: Documented(429, "Wholesale limit exceeded"),
    2019: Documented(400, _BAD_FORMAT),
    2021: Documented(
        402,
        "Insufficient wholesale credits. Please add additional credits on the AI Gateway Cloudflare dashboard to "
        "continue using provider models.",
    ),
    2029: Documented(424, "Request content blocked due to DLP policy violations"),
    2030: Documented(424, "Response content blocked due to DLP policy violations"),
    2040: Documented(400, "Provider 'deepseek' has no BYOK credential named 'missing'. Configured aliases: 'default'"),
    2041: Documented(
        429,
        "Spend limit exceeded: rule 'daily' (cost limit 1 per 86400s, fixed) for deepseek deepseek-flash",
    ),
    2045: Documented(
        429,
        "Spend limit exceeded: rule 'daily' (cost limit 1 per 86400s, fixed) for deepseek deepseek-flash",
    ),
    7000: Documented(404, "No route for that URI"),
    7001: Documented(405, "GET not supported for requested URI."),
    7003: Documented(404, "Model not found: deepseek/missing"),
    7013: Documented(503, "Guardrails are unavailable"),
    10000: Documented(401, "Authentication error"),
}
_CONNECTION = frozenset({"host", "content-length", "connection", "transfer-encoding", "cf-cache-ttl", "cf-skip-cache"})
# Refused before there is a log row, hence without a log id (observed for the run path, assumed for the others).
_UNLOGGED = frozenset({2001, 2009, 7000, 7001, 10000})


class GatewayError(Exception):
    """An error that the gateway makes, by its code."""

    def __init__(self, code: int, message: str | None = None, status: int | None = None) -> None:
        """Take status and text from the table unless they are given."""
        documented = CODES.get(code, Documented(500, "Unknown error"))
        self.code, self.status = code, status or documented.status
        self.message = documented.message if message is None else message
        super().__init__(self.message)

    def reply(self, route: str) -> Reply:
        """Return the error in the envelope of the host: a list under `error`, or under `errors` on the REST API."""
        listed = [{"code": self.code, "message": self.message}]
        if route == "rest":
            return json_reply(self.status, {"success": False, "errors": listed, "messages": [], "result": None})
        body = {
            "success": False,
            "result": [],
            "messages": [],
            "error": listed,
            "name": "AiGatewayError",
            "httpCode": self.status,
            "internalCode": self.code,
            "message": self.message,
            "description": self.message,
        }
        return json_reply(self.status, body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the owner of the gateway has configured."""

    account_id: str
    gateway_id: str
    gateway_token: str
    authenticated: bool
    stored_keys: Mapping[str, str]
    dynamic_routes: Mapping[str, str]


class Target(NamedTuple):
    """Where a URL leads; account and gateway are None where the URL does not name them."""

    route: Literal["provider", "compat", "rest"]
    account: str | None
    gateway: str | None
    path: str
    provider: str = "deepseek"


def locate(path: str) -> Target:
    """Read a URL's path.

    Provider and compat route are below `/v1/{account}/{gateway}`, or right below the host on a custom domain
    (Cloudflare docs: configuration/custom-domains); the REST API is below `/client/v4/accounts/{account}/ai`.
    """
    segments = path.removeprefix("/").split("/")
    match segments:
        case ["client", "v4", "accounts", account, "ai", *rest]:
            return Target("rest", account, None, "/" + "/".join(rest))
        case ["v1", account, gateway, *segments]:
            owner: tuple[str | None, str | None] = account, gateway
        case _:
            owner = None, None
    provider, *rest = segments or [""]
    return Target("compat" if provider == "compat" else "provider", *owner, "/" + "/".join(rest), provider)


class Gateway:
    """The gateway of one account, with `upstream` behind it."""

    def __init__(self, settings: Settings, upstream: DeepSeek) -> None:
        """Serve as `settings` say."""
        self._settings = settings
        self._upstream = upstream
        self._served = 0
        self._faults: deque[GatewayError | DeepSeekError] = deque()

    def fail_next(self, code: int | None, status: int | None, message: str | None, times: int) -> None:
        """Queue `times` failures: of the gateway if there is a code, else of DeepSeek."""
        if code is not None:
            if code not in CODES and (status is None or message is None):
                raise ValueError(f"No gateway error {code} is documented; give its status and message too.")
            fault: GatewayError | DeepSeekError = GatewayError(code, message, status)
        elif status in STATUS_ERRORS:
            fault = STATUS_ERRORS[status]()
            fault.message = fault.message if message is None else message
        else:
            known = ", ".join(map(str, STATUS_ERRORS))
            raise ValueError(f"Give a gateway code, or a status of DeepSeek's: {known}.")
        self._faults.extend([fault] * times)

    def answer(self, request: ReceivedRequest) -> tuple[ReceivedRequest, Reply]:
        """Take `request` through the gateway; return it with what DeepSeek got of it, and the answer."""
        self._served += 1
        target = locate(request.path)
        labels = self._labels(request.headers)
        try:
            if fault := self._due(GatewayError):
                raise fault
            passage = self._rest(request, target) if target.route == "rest" else self._host(request, target)
        except GatewayError as error:
            reply = error.reply(target.route)
            return request, reply.with_headers(*(self._edge() if error.code in _UNLOGGED else labels))
        if isinstance(passage, Reply):
            return request, passage.with_headers(*labels)
        forwarded, more = passage
        return replace(request, upstream=forwarded), self._ask_upstream(forwarded).with_headers(*labels, *more)

    def _ask_upstream(self, request: ReceivedRequest) -> Reply:
        return self._upstream.answer(request, self._due(DeepSeekError))

    def _due(self, kind: type[Fault]) -> Fault | None:
        """Take the next failure off the queue if it is of this `kind`."""
        if self._faults and isinstance(fault := self._faults[0], kind):
            self._faults.popleft()
            return fault
        return None

    def _edge(self) -> Pairs:
        return ("server", "cloudflare"), ("cf-ray", f"{digest('ray', self._served)[:16]}-LOC")

    def _labels(self, headers: Headers) -> Pairs:
        """Return the headers of a logged answer.

        Log ids are lowercase UUIDv7 since October 2026; request and event id equal it, unless the caller named the
        event (Cloudflare docs: changelog 2026-10-08). Step 0 is an ordinary request.
        """
        random = digest("log", self._served)
        log_id = str(uuid.UUID(f"{CREATED * 1000 + self._served:012x}7{random[:3]}8{random[3:18]}"))
        return (
            *self._edge(),
            ("cf-aig-log-id", log_id),
            ("cf-aig-request-id", log_id),
            ("cf-aig-event-id", headers.get("cf-aig-event-id", log_id)),
            ("cf-aig-step", "0"),
        )

    def _host(self, request: ReceivedRequest, target: Target) -> Reply | Passage:
        """Serve gateway.ai.cloudflare.com and custom domains: the provider route and the compat route."""
        settings, headers = self._settings, request.headers
        gateway = target.gateway or settings.gateway_id
        if target.account not in {None, settings.account_id} or gateway not in {settings.gateway_id, "default"}:
            raise GatewayError(2001)
        # A gateway `default` comes into being with its first authenticated request, authentication switched on
        # (Cloudflare docs: configuration/manage-gateway).
        authenticated = settings.authenticated or gateway != settings.gateway_id
        if authenticated and not _bears(headers, "cf-aig-authorization", settings.gateway_token):
            raise GatewayError(2009)
        stored = settings.stored_keys if authenticated else dict[str, str]()
        if target.route == "compat":
            return self._compat(request, target.path, stored, authenticated=authenticated)
        if target.provider != "deepseek":
            raise GatewayError(2008)
        return _forward(request, target.path, request.body, _stored_key(headers, stored)), ()

    def _compat(
        self, request: ReceivedRequest, path: str, stored: Mapping[str, str], *, authenticated: bool
    ) -> Reply | Passage:
        """Serve the compat route: models carry their provider's prefix, and dynamic routes have names.

        `chat/completions` is all that is documented; `models` exists and wants credentials (observed). Dynamic routes
        need an authenticated gateway and stored keys (Cloudflare docs: features/dynamic-routing/usage).
        """
        if path == "/models" and request.method == "GET":
            if not authenticated and "authorization" not in request.headers:
                raise GatewayError(2009)
            models = [model_entry(name) | {"id": f"deepseek/{name}"} for name in MODELS]
            return json_reply(200, {"object": "list", "data": models})
        if path != "/chat/completions":
            raise GatewayError(2019, f"Compatibility endpoint: {path.removeprefix('/')} is not supported.")
        if request.method != "POST":
            return Reply(status=405, headers=(("allow", "POST"),))
        provider, _, model = str(mapping(request.json).get("model", "")).partition("/")
        if not model:
            raise GatewayError(2019)
        labels: Pairs = ()
        if provider == "dynamic":
            if model not in self._settings.dynamic_routes or not stored:
                raise GatewayError(2005)
            model = self._settings.dynamic_routes[model]
            labels = ("cf-aig-model", model), ("cf-aig-provider", "deepseek")
        elif provider != "deepseek":
            raise GatewayError(2008)
        key = _stored_key(request.headers, stored)
        return _forward(request, path, _with_model(request, model), key), labels

    def _rest(self, request: ReceivedRequest, target: Target) -> Passage:
        """Serve api.cloudflare.com, which takes the Cloudflare token in `Authorization` and keeps it.

        It reaches DeepSeek with the stored key `default` only, else Cloudflare would pay; models are those of its
        catalog, with their author's prefix (Cloudflare docs: usage/rest-api, configuration/bring-your-own-keys).
        """
        settings = self._settings
        if target.account != settings.account_id or not _bears(
            request.headers, "authorization", settings.gateway_token
        ):
            raise GatewayError(10000)
        if request.headers.get("cf-aig-gateway-id", "default") not in {settings.gateway_id, "default"}:
            raise GatewayError(2001)
        if target.path not in {"/v1/chat/completions", "/v1/responses", "/v1/models"}:
            raise GatewayError(7000)
        if request.method != "POST" or target.path == "/v1/models":
            raise GatewayError(7001, f"{request.method} not supported for requested URI.")
        name = str(mapping(request.json).get("model", ""))
        model = name.removeprefix("deepseek/")
        if model == name or model not in {*MODELS, *RETIRED}:
            raise GatewayError(7003, f"Model not found: {name}")
        if "default" not in settings.stored_keys:
            raise GatewayError(2021, "Insufficient balance; add money to your gateway or use BYOK")
        path = target.path.removeprefix("/v1")
        return _forward(request, path, _with_model(request, model), settings.stored_keys["default"], own=False), ()


def _bears(headers: Headers, name: str, token: str) -> bool:
    """Tell whether the header is `Bearer <token>`."""
    scheme, _, value = headers.get(name, "").partition(" ")
    return scheme.lower() == "bearer" and value.strip() == token


def _stored_key(headers: Headers, stored: Mapping[str, str]) -> str | None:
    """Return the stored key to use, if any.

    Any `Authorization`, even an empty one, is taken for a provider key and keeps stored keys out (observed). A named
    alias must exist, the others are not tried (observed). Without a key the request goes on as it is, and DeepSeek
    refuses it (observed), unless Cloudflare is told never to pay: then it ends here with 400, of which neither code
    nor text is known.
    """
    if "authorization" in headers:
        return None
    alias = headers.get("cf-aig-byok-alias", "default")
    paid = headers.get("cf-aig-no-wholesale", "").lower() != "true"
    if alias not in stored and (alias != "default" or not paid):
        aliases = ", ".join(f"'{name}'" for name in stored)
        raise GatewayError(
            2040, f"Provider 'deepseek' has no BYOK credential named '{alias}'. Configured aliases: {aliases}"
        )
    return stored.get(alias)


def _with_model(request: ReceivedRequest, model: str) -> bytes:
    """Return the body with another model; what compat does to unknown fields is documented nowhere: they stay."""
    return to_json({**mapping(request.json), "model": model})


def _forward(request: ReceivedRequest, path: str, body: bytes, key: str | None, *, own: bool = True) -> ReceivedRequest:
    """Return the request as DeepSeek gets it, without what is Cloudflare's (configuration/custom-domains).

    `own` says that an `Authorization` of the caller is meant for DeepSeek.
    """
    dropped = _CONNECTION if own else _CONNECTION | {"authorization"}
    headers = [("host", "api.deepseek.com")]
    headers += [
        (name, value)
        for name, value in request.headers.items()
        if name not in dropped and not name.startswith(("cf-aig-", "cf-access-"))
    ]
    headers += [("authorization", f"Bearer {key}")] if key is not None else []
    headers += [("content-length", str(len(body)))] if body else []
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return ReceivedRequest(method=request.method, path=path, query=request.query, headers=Headers(raw=raw), body=body)
