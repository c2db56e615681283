"""The emulated DeepSeek: its keys and endpoints. No header and no token of the gateway reaches it."""

import re
from collections.abc import Callable, Collection, Iterable

from deepseek_gateway.emulator._answers import Answers
from deepseek_gateway.emulator._chat import chat_body, chat_events, fim_body, fim_events
from deepseek_gateway.emulator._errors import Refusal, ServiceError, deepseek_refusal, wrong_key
from deepseek_gateway.emulator._ids import digest
from deepseek_gateway.emulator._json import Json, mapping, to_json
from deepseek_gateway.emulator._models import model_list
from deepseek_gateway.emulator._prompt import Body, Prompt, chat_prompt, fim_prompt, responses_prompt
from deepseek_gateway.emulator._responses import responses_body, responses_events
from deepseek_gateway.emulator._turn import Turn, take_turn
from deepseek_gateway.emulator._wire import ReceivedRequest, Reply, json_reply

Take = Callable[[Prompt], Turn]
_MAX_LOGPROBS = 20
# Amounts are strings (DeepSeek docs: api/get-user-balance).
_AMOUNTS = {"currency": "USD", "total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00"}
_BALANCE = {"is_available": True, "balance_infos": [_AMOUNTS]}


class DeepSeek:
    """The upstream service, with the keys that it accepts."""

    def __init__(self, keys: Collection[str]) -> None:
        self._keys = frozenset(keys)
        self._count = 0
        self.answers = Answers()

    def answer(self, received: ReceivedRequest, request: ReceivedRequest, error: Reply | None = None) -> Reply:
        """Answer `request`, which was `received` as its caller sent it, with `error` if that is given."""
        self._count += 1
        try:
            if error is None:
                self._authenticate(request.headers.get("authorization", ""))
            reply = error or _route(request, lambda prompt: take_turn(prompt, self.answers.take(received)))
        except Refusal as refusal:
            reply = refusal.error.reply()
        return reply.with_headers(("x-ds-trace-id", digest("trace", self._count)[:32]))

    def _authenticate(self, authorization: str) -> None:
        key = re.sub(r"^bearer\b\s*", "", authorization.strip(), flags=re.IGNORECASE)
        if not key:
            raise Refusal(ServiceError("text", 401, "Authentication Fails (governor)", content_type=None))
        if key not in self._keys:
            raise Refusal(wrong_key(key))


def _route(request: ReceivedRequest, take: Take) -> Reply:
    """Find the endpoint; `/v1` and `/beta` may precede any of them, and FIM is under `/beta` only."""
    name = request.path.removeprefix("/beta" if request.path.startswith("/beta/") else "/v1")
    endpoints: dict[str, tuple[str, Callable[[ReceivedRequest, Take], Reply]]] = {
        "/chat/completions": ("POST", _chat),
        "/completions": ("POST", _fim),
        "/responses": ("POST", _responses),
        "/models": ("GET", lambda _, _take: json_reply(200, model_list())),
        "/user/balance": ("GET", lambda _, _take: json_reply(200, _BALANCE)),
    }
    if name not in endpoints:
        return Reply(status=404)
    method, endpoint = endpoints[name]
    if request.method != method:
        return Reply(status=405, headers=(("allow", method),))
    return endpoint(request, take)


def _chat(request: ReceivedRequest, take: Take) -> Reply:
    body = Body(request, "model", "messages")
    fields, turn = body.json, take(chat_prompt(body))
    top = fields.get("top_logprobs")
    logprobs = (min(top, _MAX_LOGPROBS) if isinstance(top, int) else 0) if fields.get("logprobs") else None
    include_usage = bool(mapping(fields.get("stream_options")).get("include_usage"))
    return _written(fields, chat_body(turn, logprobs), chat_events(turn, logprobs, include_usage=include_usage))


def _fim(request: ReceivedRequest, take: Take) -> Reply:
    if not request.path.startswith("/beta/"):
        advice = 'set base_url="https://api.deepseek.com/beta"'
        raise deepseek_refusal(f"completions api is only available when using beta api ({advice})")
    body = Body(request, "model", "prompt")
    turn = take(fim_prompt(body))
    if turn.calls:
        raise ValueError("A fill-in-the-middle completion has no tool calls, but its next answer has.")
    return _written(body.json, fim_body(turn), fim_events(turn))


def _responses(request: ReceivedRequest, take: Take) -> Reply:
    body = Body(request, "model", "input")
    turn = take(responses_prompt(body))
    return _written(body.json, responses_body(turn, body.json), responses_events(turn, body.json))


def _written(fields: Json, whole: Json, events: Iterable[bytes]) -> Reply:
    """Return the answer whole or, if that was asked for, as a stream of events."""
    if not fields.get("stream"):
        return json_reply(200, whole)
    headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
    return Reply(status=200, headers=headers, chunks=tuple(events), streamed=True, unstreamed=to_json(whole))
