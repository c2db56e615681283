"""The routes: where a URL leads, who may pass, with which key, and with which model name."""

from dataclasses import replace
from typing import NamedTuple

from starlette.datastructures import Headers

from deepseek_gateway.emulator._errors import gateway_refusal
from deepseek_gateway.emulator._json import mapping, to_json
from deepseek_gateway.emulator._models import MODELS, RETIRED, model_list
from deepseek_gateway.emulator._settings import Settings
from deepseek_gateway.emulator._wire import Pairs, ReceivedRequest, Reply, Route, json_reply

_NOT_FORWARDED = (b"host", b"content-length", b"connection", b"transfer-encoding", b"cf-cache-ttl", b"cf-skip-cache")
# Slugs of other providers (Cloudflare docs: usage/providers). This gateway knows them but cannot reach them.
_OTHER_PROVIDERS = (
    {"openai", "anthropic", "google-ai-studio", "google-vertex-ai", "grok", "groq", "mistral", "workers-ai"}
    | {"azure-openai", "aws-bedrock", "cohere", "perplexity-ai", "openrouter", "huggingface", "replicate", "cerebras"}
)  # fmt: skip


class Target(NamedTuple):
    """Where a URL leads; account and gateway are None where the URL does not name them."""

    route: Route
    account: str | None
    gateway: str | None
    path: str
    provider: str = "deepseek"


class Passage(NamedTuple):
    """A request that may pass: as it is forwarded to DeepSeek, and the headers that its response gets."""

    forwarded: ReceivedRequest
    headers: Pairs = ()


def locate(path: str) -> Target:
    """Read a URL's path.

    The provider and compat routes are below `/v1/{account}/{gateway}`, or right below the host on a custom domain
    (Cloudflare docs: configuration/custom-domains). The REST API is below `/client/v4/accounts/{account}/ai`. `/direct`
    stands for DeepSeek's own host, so that a URL of the gateway with a mistake in it never reaches DeepSeek.
    """
    segments = path.removeprefix("/").split("/")
    match segments:
        case ["client", "v4", "accounts", account, "ai", *rest]:
            return Target("rest", account, None, "/" + "/".join(rest))
        case ["direct", *rest]:
            return Target("direct", None, None, "/" + "/".join(rest))
        case ["v1", account, gateway, *segments]:
            owner: tuple[str | None, str | None] = account, gateway
        case _:
            owner = None, None
    provider, *rest = segments or [""]
    return Target("compat" if provider == "compat" else "provider", *owner, "/" + "/".join(rest), provider)


def admit(request: ReceivedRequest, target: Target, settings: Settings) -> Passage | Reply:
    """Let a request pass or answer it; raise the gateway's refusal if neither is right."""
    if target.route == "rest":
        return _rest(request, target, settings)
    gateway = target.gateway or settings.gateway_id
    if target.account not in {None, settings.account_id} or gateway not in {settings.gateway_id, "default"}:
        raise gateway_refusal(2001)
    # The first authenticated request creates the gateway `default`, with authentication on (Cloudflare docs:
    # configuration/manage-gateway).
    authenticated = settings.authenticated or gateway != settings.gateway_id
    if authenticated and not _bears(request.headers, "cf-aig-authorization", settings.gateway_token):
        # The token alone in `Authorization` works too, and is then not a provider key (Cloudflare docs:
        # features/dynamic-routing/usage for compat; observed on provider routes).
        alone = "cf-aig-authorization" not in request.headers
        if not (alone and _bears(request.headers, "authorization", settings.gateway_token)):
            raise gateway_refusal(2009)
        request = _without_authorization(request)
    stored = settings.keys if authenticated else None
    if target.route == "compat":
        return _compat(request, target.path, settings, stored)
    _check_provider(target.provider)
    alias = request.headers.get("cf-aig-byok-alias", "default")
    return Passage(_forward(request, target.path, request.body, _stored_key(request.headers, stored, alias)))


def _compat(request: ReceivedRequest, path: str, settings: Settings, stored: dict[str, str] | None) -> Passage | Reply:
    """Serve the compat route: models carry the prefix of their provider, and dynamic routes have names.

    Only `chat/completions` is documented; `models` exists and requires credentials (observed). Dynamic routes need an
    authenticated gateway and stored keys (Cloudflare docs: features/dynamic-routing/usage).
    """
    if path == "/models" and request.method == "GET":
        if stored is None and "authorization" not in request.headers:
            raise gateway_refusal(2009)
        return json_reply(200, model_list("deepseek/"))
    if path != "/chat/completions":
        raise gateway_refusal(2019, f"Compatibility endpoint: {path.removeprefix('/')} is not supported.")
    if request.method != "POST":
        return Reply(status=405, headers=(("allow", "POST"),))
    provider, _, model = request.model.partition("/")
    if not model:
        raise gateway_refusal(2019)
    headers: Pairs = ()
    if provider == "dynamic":
        if model not in settings.dynamic_routes or not stored:
            raise gateway_refusal(2005)
        model = settings.dynamic_routes[model]
        headers = ("cf-aig-model", model), ("cf-aig-provider", "deepseek")
    else:
        _check_provider(provider)
    # An alias has an effect on provider routes only (Cloudflare docs: configuration/bring-your-own-keys). The documents
    # do not say what compat does to unknown fields; here they stay.
    key = _stored_key(request.headers, stored, "default")
    return Passage(_forward(request, path, to_json({**mapping(request.json), "model": model}), key), headers)


def _rest(request: ReceivedRequest, target: Target, settings: Settings) -> Passage:
    """Serve api.cloudflare.com, which takes the Cloudflare token in `Authorization` and does not forward it.

    Only the stored key `default` reaches DeepSeek; without that key Cloudflare would pay. Models are those of the
    catalog, prefixed with their author (Cloudflare docs: usage/rest-api, configuration/bring-your-own-keys).
    """
    authorized = _bears(request.headers, "authorization", settings.gateway_token)
    if target.account != settings.account_id or not authorized:
        raise gateway_refusal(10000)
    if request.headers.get("cf-aig-gateway-id", "default") not in {settings.gateway_id, "default"}:
        raise gateway_refusal(2001)
    if target.path not in {"/v1/chat/completions", "/v1/responses", "/v1/models"}:
        raise gateway_refusal(7000)
    if request.method != "POST" or target.path == "/v1/models":
        raise gateway_refusal(7001, f"{request.method} not supported for requested URI.")
    model = request.model.removeprefix("deepseek/")
    if model == request.model or model not in {*MODELS, *RETIRED}:
        raise gateway_refusal(7003, f"Model not found: {request.model}")
    if "default" not in settings.keys:
        raise gateway_refusal(2021, "Insufficient balance; add money to your gateway or use BYOK")
    body, path = to_json({**mapping(request.json), "model": model}), target.path.removeprefix("/v1")
    return Passage(_forward(_without_authorization(request), path, body, settings.keys["default"]))


def _bears(headers: Headers, name: str, token: str) -> bool:
    scheme, _, value = headers.get(name, "").partition(" ")
    return scheme.lower() == "bearer" and value.strip() == token


def _without_authorization(request: ReceivedRequest) -> ReceivedRequest:
    raw = [(name, value) for name, value in request.headers.raw if name != b"authorization"]
    return replace(request, headers=Headers(raw=raw))


def _check_provider(provider: str) -> None:
    if provider in _OTHER_PROVIDERS:
        raise gateway_refusal(2005)
    if provider != "deepseek":
        raise gateway_refusal(2008)


def _stored_key(headers: Headers, stored: dict[str, str] | None, alias: str) -> str | None:
    """Return the stored key to use, if any.

    Any `Authorization`, even an empty one, keeps stored keys out, and a named alias must exist (observed). Without a
    key DeepSeek refuses the request (observed), or the gateway does so if Cloudflare must not pay, with a 400.
    """
    if "authorization" in headers:
        return None
    keys = stored or {}
    may_bill = headers.get("cf-aig-no-wholesale", "").lower() != "true"
    if alias not in keys and (alias != "default" or not may_bill):
        missing = f"Provider 'deepseek' has no BYOK credential named '{alias}'."
        raise gateway_refusal(2040, f"{missing} Configured aliases: {', '.join(map(repr, keys))}")
    return keys.get(alias)


def _forward(request: ReceivedRequest, path: str, body: bytes, key: str | None) -> ReceivedRequest:
    """Return the request for DeepSeek, without Cloudflare's headers (Cloudflare docs: configuration/custom-domains)."""
    ours = b"cf-aig-", b"cf-access-"
    raw = [pair for pair in request.headers.raw if pair[0] not in _NOT_FORWARDED and not pair[0].startswith(ours)]
    raw.insert(0, (b"host", b"api.deepseek.com"))
    if key is not None:
        raw.append((b"authorization", f"Bearer {key}".encode()))
    if body:
        raw.append((b"content-length", str(len(body)).encode()))
    return ReceivedRequest(method=request.method, path=path, query=request.query, headers=Headers(raw=raw), body=body)
