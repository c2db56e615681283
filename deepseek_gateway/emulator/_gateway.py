"""The emulated AI Gateway: which URL leads where, who may pass, with which key, and what it says when nobody may.

One function, `Gateway.answer()`, takes a request through the gateway in the order in which the gateway itself works:
locate, authenticate, choose credentials, translate the model name, count, scan, look into the cache, forward, scan,
label the answer.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from starlette.datastructures import Headers

from deepseek_gateway.emulator._answers import CREATED, digest
from deepseek_gateway.emulator._checks import SEGMENT, VISIBLE, check_limit, check_number, check_text, check_texts
from deepseek_gateway.emulator._deepseek import MODELS, RETIRED, DeepSeek, model_entry
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply, json_reply, mapping, to_json
from deepseek_gateway.emulator._faults import UNLOGGED, Action, Fault, GatewayError, Pairs, dlp_header
from deepseek_gateway.emulator._policies import Cache, Window, cost, found, number, prices

Passage = tuple[ReceivedRequest, Pairs]

_CONNECTION = frozenset({"host", "content-length", "connection", "transfer-encoding", "cf-cache-ttl", "cf-skip-cache"})
# Some slugs of providers besides DeepSeek (Cloudflare docs: usage/providers). Only DeepSeek is behind this gateway, so
# to ask another one is to get no answer from it, unlike a name that Cloudflare does not know.
_OTHER_PROVIDERS = {
    "openai",
    "anthropic",
    "google-ai-studio",
    "google-vertex-ai",
    "grok",
    "groq",
    "mistral",
    "workers-ai",
} | {"azure-openai", "aws-bedrock", "cohere", "perplexity-ai", "openrouter", "huggingface", "replicate", "cerebras"}
_TOO_MANY, _SERVER_ERROR = 429, 500
_MOST_ATTEMPTS, _LONGEST_DELAY = 5, 60_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the owner of the gateway has configured."""

    account_id: str
    gateway_id: str
    gateway_token: str
    authenticated: bool
    stored_keys: Mapping[str, str]
    dynamic_routes: Mapping[str, str]
    cache_ttl: float | None
    rate_limit: tuple[int, float] | None
    spend_limit: tuple[float, float] | None
    guardrails: Collection[str] | None
    dlp: Mapping[str, Action]
    latency: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("account_id", "gateway_id"):
            check_text(name, getattr(self, name), SEGMENT, "one segment of a URL's path, without a slash")
        for key in (self.gateway_token, *self.stored_keys.values()):
            check_text("a key or token", key, VISIBLE, "visible ASCII characters")
        for model in self.dynamic_routes.values():
            check_text("the model of a dynamic route", model, VISIBLE, "visible ASCII characters")
        for action in self.dlp.values():
            check_text("what dlp does", action, "BLOCK|FLAG", "BLOCK or FLAG")
        if self.guardrails is not None:
            check_texts("guardrails", self.guardrails)
        if self.cache_ttl is not None:
            check_number("cache_ttl", self.cache_ttl)
        check_number("latency", self.latency)
        for name in ("rate_limit", "spend_limit"):
            if getattr(self, name) is not None:
                check_limit(name, getattr(self, name))


class _GaveUpError(Exception):
    """Cloudflare's edge did not wait for the gateway, which had asked DeepSeek already."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault


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
        self.faults: deque[Fault] = deque()
        self._cache = Cache(settings.cache_ttl)
        self._requests, self._spending = Window(settings.rate_limit), Window(settings.spend_limit)

    async def answer(self, request: ReceivedRequest) -> Reply:
        """Take `request` through the gateway; what happens to it on the way is noted on it."""
        self._served += 1
        target = locate(request.path)
        edge, labels = self._labels(request.headers)
        try:
            if fault := self._due(early=True):
                await asyncio.sleep(fault.delay)
                reply = fault.strike(Reply(status=200), target.route)
                logged = not fault.edge and fault.code not in UNLOGGED
            else:
                passage = self._rest(request, target) if target.route == "rest" else self._host(request, target)
                reply = passage if isinstance(passage, Reply) else await self._pass(request, target, *passage)
                logged = True
        except GatewayError as error:
            reply, logged = error.reply(target.route), error.code not in UNLOGGED
        except _GaveUpError as error:
            reply, logged = error.fault.strike(Reply(status=200), target.route), False
        return reply.with_headers(*edge, *(labels if logged else ()))

    async def _pass(self, request: ReceivedRequest, target: Target, forwarded: ReceivedRequest, more: Pairs) -> Reply:
        """Let the request through to DeepSeek, and the answer back, unless a setting of the gateway is against it.

        Guardrails make one JSON body of a stream, but the REST API streams and does not look at answers (Cloudflare
        docs: features/guardrails/usage-considerations). What DLP only flags is told in a header.
        """
        guarded, dlp = self._settings.guardrails, self._settings.dlp
        if self._requests.full:
            raise GatewayError(2003)
        self._requests.add(1)
        if found(guarded, forwarded.body):
            raise GatewayError(2016)
        asked = {dlp[word] for word in found(dlp, forwarded.body)}
        if "BLOCK" in asked:
            raise GatewayError(2029)
        reply = await self._fetch(request, forwarded, target.route)
        if guarded is not None and target.route != "rest":
            if found(guarded, reply.body):
                raise GatewayError(2017)
            if reply.streamed:
                kept = tuple(pair for pair in reply.headers if pair[0] not in {"content-type", "cache-control"})
                headers = (("content-type", "application/json"), *kept)
                reply = replace(reply, headers=headers, chunks=(reply.body,), streamed=False)
        answered = {dlp[word] for word in found(dlp, reply.body)}
        if "BLOCK" in answered:
            raise GatewayError(2030)
        flagged = [check for check, actions in (("REQUEST", asked), ("RESPONSE", answered)) if actions]
        return reply.with_headers(*more, *((dlp_header("FLAG", *flagged),) if flagged else ()))

    async def _fetch(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Reply:
        """Get the answer from the cache or from DeepSeek.

        A hit costs nothing, and is served even to those who have spent too much. A spend limit does not apply to a
        model without a price (Cloudflare docs: features/policies, features/spend-limits).
        """
        slot = self._cache.slot(request, forwarded, route)
        if slot and (kept := self._cache.get(slot)):
            request.cost = 0.0
            return kept.with_headers(("cf-aig-cache-status", "HIT"))
        model = str(mapping(forwarded.json).get("model"))
        charged = prices(request, model)
        if charged is not None and self._spending.full:
            most, seconds = self._settings.spend_limit or (0, 0)
            rule = f"rule 'emulator' (cost limit {most:g} per {seconds:g}s, sliding)"
            raise GatewayError(2045, f"Spend limit exceeded: {rule} for deepseek {model}")
        reply = await self._ask_upstream(request, forwarded, route)
        request.cost = cost(reply, charged)
        self._spending.add(request.cost or 0.0)
        if slot is None:
            return reply
        self._cache.put(slot, reply)
        return reply.with_headers(("cf-aig-cache-status", "MISS"))

    async def _ask_upstream(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Reply:
        """Ask DeepSeek, as often and as patiently as the headers say (Cloudflare docs: configuration/request-handling).

        What counts as a failure is documented as "failed request / provider returned an error"; here: no connection,
        nothing within `cf-aig-request-timeout`, 429 and 5xx. The last of several tries may take as long as it takes.
        Then DeepSeek's error is passed on; without one it is 2005, also for a timeout, whose code is not known.
        """
        headers = request.headers
        tries = min(max(number(headers, "cf-aig-max-attempts") or 1, 1), _MOST_ATTEMPTS)
        delay = min(number(headers, "cf-aig-retry-delay") or 0, _LONGEST_DELAY) / 1000
        timeout = number(headers, "cf-aig-request-timeout")
        seconds = timeout / 1000 if timeout else None
        reply: Reply | None = None
        for retry in range(tries):
            if retry:
                growth = {"linear": retry, "exponential": 2 ** (retry - 1)}
                await asyncio.sleep(delay * growth.get(headers.get("cf-aig-backoff", "constant"), 1))
            request.attempts.append(forwarded)
            reply = None
            with suppress(TimeoutError):
                async with asyncio.timeout(None if 0 < retry == tries - 1 else seconds):
                    reply = await self._try(forwarded, route)
            if reply is not None and reply.status != _TOO_MANY and reply.status < _SERVER_ERROR:
                break
        if reply is None:
            raise GatewayError(2005)
        return reply

    async def _try(self, forwarded: ReceivedRequest, route: str) -> Reply | None:
        """Ask DeepSeek once; `None` is for a provider that cannot be reached."""
        fault = self._due(early=False)
        if fault is None:
            await asyncio.sleep(self._settings.latency)
            return self._upstream.answer(forwarded)
        await asyncio.sleep(fault.delay if fault.latency else self._settings.latency)
        if fault.unreachable:
            return None
        if fault.edge:
            raise _GaveUpError(fault)
        error = fault.error(route) if fault.event is None else None
        return fault.strike(self._upstream.answer(forwarded, error), route)

    def _due(self, *, early: bool) -> Fault | None:
        """Take the next failure off the queue if this is the place for it."""
        return self.faults.popleft() if self.faults and self.faults[0].early == early else None

    def _labels(self, headers: Headers) -> tuple[Pairs, Pairs]:
        """Return the headers of every answer, and those that a logged answer has besides.

        Log ids are lowercase UUIDv7 since October 2026; request and event id equal it, unless the caller named the
        event (Cloudflare docs: changelog 2026-10-08). Step 0 is an ordinary request.
        """
        random = digest("log", self._served)
        log_id = str(uuid.UUID(f"{CREATED * 1000 + self._served:012x}7{random[:3]}8{random[3:18]}"))
        edge = ("server", "cloudflare"), ("cf-ray", f"{digest('ray', self._served)[:16]}-LOC")
        return edge, (
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
            # The token alone in `Authorization` works too, and is then no provider key (Cloudflare docs:
            # features/dynamic-routing/usage for compat; observed on provider routes).
            if "cf-aig-authorization" in headers or not _bears(headers, "authorization", settings.gateway_token):
                raise GatewayError(2009)
            request = _without_authorization(request)
        stored = settings.stored_keys if authenticated else dict[str, str]()
        if target.route == "compat":
            return self._compat(request, target.path, stored, authenticated=authenticated)
        _check_provider(target.provider)
        alias = headers.get("cf-aig-byok-alias", "default")
        return _forward(request, target.path, request.body, _stored_key(request.headers, stored, alias)), ()

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
        else:
            _check_provider(provider)
        # Only provider routes let an alias choose (Cloudflare docs: configuration/bring-your-own-keys).
        key = _stored_key(request.headers, stored, "default")
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
        body, key = _with_model(request, model), settings.stored_keys["default"]
        return _forward(_without_authorization(request), path, body, key), ()


def _bears(headers: Headers, name: str, token: str) -> bool:
    """Tell whether the header is `Bearer <token>`."""
    scheme, _, value = headers.get(name, "").partition(" ")
    return scheme.lower() == "bearer" and value.strip() == token


def _without_authorization(request: ReceivedRequest) -> ReceivedRequest:
    """Return the request without its `Authorization`, which was meant for Cloudflare."""
    raw = [(name, value) for name, value in request.headers.raw if name != b"authorization"]
    return replace(request, headers=Headers(raw=raw))


def _check_provider(provider: str) -> None:
    """Refuse all but DeepSeek: whom Cloudflare knows cannot be reached from here, others do not exist."""
    if provider in _OTHER_PROVIDERS:
        raise GatewayError(2005)
    if provider != "deepseek":
        raise GatewayError(2008)


def _stored_key(headers: Headers, stored: Mapping[str, str], alias: str) -> str | None:
    """Return the stored key to use, if any.

    Any `Authorization`, even an empty one, is taken for a provider key and keeps stored keys out (observed). A named
    alias must exist, the others are not tried (observed). Without a key the request goes on as it is, and DeepSeek
    refuses it (observed), unless Cloudflare is told never to pay: then it ends here with 400, of which neither code
    nor text is known.
    """
    if "authorization" in headers:
        return None
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


def _forward(request: ReceivedRequest, path: str, body: bytes, key: str | None) -> ReceivedRequest:
    """Return the request as DeepSeek gets it, without what is Cloudflare's (configuration/custom-domains)."""
    headers = [("host", "api.deepseek.com")]
    headers += [
        (name, value)
        for name, value in request.headers.items()
        if name not in _CONNECTION and not name.startswith(("cf-aig-", "cf-access-"))
    ]
    headers += [("authorization", f"Bearer {key}")] if key is not None else []
    headers += [("content-length", str(len(body)))] if body else []
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return ReceivedRequest(method=request.method, path=path, query=request.query, headers=Headers(raw=raw), body=body)
