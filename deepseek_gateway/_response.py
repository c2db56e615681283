"""What comes back from the gateway, made such that the SDK gives or raises what an OpenAI user expects.

Pure functions of status, headers and body; the facts are those of Cloudflare's and DeepSeek's documentation and of
answers captured from the live service.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._codes import CODES, EDGE, TEXTS, Sent, deepseek_remedy
from ._config import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Object: TypeAlias = dict[str, Any]

_FAULTS = range(400, 600)
_LONGEST_ERROR = 65_536
_BEGINNING = 512


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in OpenAI's form, and whether asking again can help (None: as the SDK decides by the status)."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    original: Any = None
    retry: bool | None = None
    advice: str = ""

    @property
    def logged(self) -> str:
        """What may go to a log: who, what by our own words and what to do, and nothing that somebody else wrote."""
        code = f" ({self.code})" if self.code else ""
        return f"{self.status} {self.type}{code}: {self.advice}" if self.advice else f"{self.status} {self.type}{code}"

    @property
    def body(self) -> Object:
        """What every supported SDK turns into `.message`, `.type`, `.code`, `.param` and `.body`."""
        error: Object = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error if self.original is None else {**error, "original": self.original}}


def request_id(headers: Mapping[str, str]) -> str | None:
    """Give the id to ask about: the gateway's log id, else DeepSeek's trace id, else that of Cloudflare's edge."""
    return headers.get("cf-aig-log-id") or headers.get("x-ds-trace-id") or headers.get("cf-ray")


def redirect_refused(status: int, location: str) -> Fault:
    """Say that a redirect was not followed; the target is named by its host alone, its path could hold a secret."""
    host = location.partition("?")[0].partition("://")[2].partition("/")[0].rpartition("@")[2]
    return Fault(
        status,
        f"The gateway's address answered with a redirect to {host or 'another path of the same host'}, which was not "
        f"followed, because your credentials would have gone there. Check {VARIABLE['endpoint']}.",
        type="redirect_refused",
        code="redirect_refused",
        retry=False,
    )


def explain(status: int, headers: Mapping[str, str], text: str, sent: Sent) -> Fault | None:
    """Put the error of a gateway, an edge or a plain-text upstream into OpenAI's form.

    A gateway error is a JSON object with `success: false` or a list of errors; Cloudflare's edge, which stands before
    it, answers in plain text, HTML or problem JSON; whatever else is no JSON is the upstream's.

    Args:
        status: The HTTP status; one under 400 belongs to an answer that holds an error all the same.
        headers: The headers of the answer.
        text: Its body.
        sent: What is known of the request.

    Returns:
        The error, or None when the body is in OpenAI's form already, as DeepSeek's own errors are.
    """
    text = sent.hide(text)
    try:
        data = _object(text)
    except ValueError:
        return _plain(status, headers, text.strip(), sent)
    error: Any = data.get("error")
    by_gateway = data.get("success") is False or data.get("name") == "AiGatewayError"
    if by_gateway or isinstance(error, list) or isinstance(data.get("errors"), list):
        return _gateway(status, data, sent)
    if isinstance(error, dict) and isinstance(cast("Object", error).get("message"), str):
        return None
    if "title" in data and "status" in data:
        said = ": ".join(str(data[key]) for key in ("title", "detail") if data.get(key))
        return _edge(status, headers, str(data["status"]), said, data)
    said = next((data[key] for key in ("error", "message", "detail") if isinstance(data.get(key), str)), text.strip())
    return _upstream(status, said, data, sent)


def may_hold_a_fault(body: bytes) -> bool:
    """Whether a body that came with status 200 is worth a closer look; most are not, and looking costs a parse.

    One with `choices` is not; to find those where they stand takes less than to search the whole of a long answer.
    """
    choices = body.find(b'"choices":', 0, _BEGINNING)
    if choices > 0 and body.count(b"{", 0, choices) == 1:  # the outermost object's
        return False
    return b'"error"' in body or b'"success"' in body


def hidden_fault(text: str, sent: Sent) -> Fault | None:
    """Find the error in an answer that came with status 200; None when it holds none.

    The error takes the status in its body, else 502. A `/responses` object tells of its own failure and passes.
    """
    text = sent.hide(text)
    try:
        data = _object(text)
    except ValueError:
        return None
    error: Any = data.get("error") or data.get("errors")
    by_gateway = data.get("success") is False
    if not (error or by_gateway) or data.get("object") == "response" or "choices" in data:
        return None
    if sent.method != "POST" and not by_gateway:
        return None  # a file that is downloaded may hold anything
    own = cast("Object", error) if isinstance(error, dict) else {}
    numbers = (data.get("httpCode"), own.get("status"), own.get("code"))
    status = next((number for number in numbers if isinstance(number, int) and number in _FAULTS), 502)
    if fault := explain(status, {}, text, sent):
        return fault
    kind, code, param = (None if own.get(key) is None else str(own[key]) for key in ("type", "code", "param"))
    return Fault(status, own["message"], kind or "upstream_error", code, param, original=data)


def not_a_stream(content_type: str, text: str, sent: Sent) -> Fault:
    """Say that what came in place of a stream is neither a stream nor JSON."""
    said = f"200 came with {content_type or 'no content type'} in place of a stream"
    text = sent.hide(text)
    return Fault(502, f"{said}: {_readable(text)}", "upstream_error", original=text, retry=False, advice=said)


def _object(text: str) -> Object:
    """Read a JSON object; anything else is a ValueError, also one nested too deeply to be read."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # for those who ask, as little JSON as no JSON
    return cast("Object", data)


def final(status: int, sent: Sent) -> bool:
    """Whether the upstream's failure is final, because the gateway was asked to try several times and has."""
    return sent.max_attempts > 1 and (status in {408, 409, 429} or status >= 500)  # noqa: PLR2004  # the SDK's own list


def _gateway(status: int, data: Object, sent: Sent) -> Fault:
    """Explain an error that the gateway made, in any of its envelopes."""
    entries: Any = data.get("error") or data.get("errors") or {}
    first = cast("list[Object]", entries)[0] if isinstance(entries, list) else entries
    entry = cast("Object", first) if isinstance(first, dict) else {"message": first}
    number = entry.get("code", data.get("internalCode"))
    code = None if number is None else str(number)
    text = str(entry.get("message") or data.get("message") or data.get("description") or "").strip()
    row = CODES.get(code or "") or next((row for start, row in TEXTS.items() if text.lower().startswith(start)), None)
    own = " ".join(part for part in (code, text) if part)
    message = f"{status} from AI Gateway, not from DeepSeek: "
    advice = f"{row.meaning}; {row.advice(sent)}" if row else ""
    if row:
        message += f"{row.meaning} ({own}); {row.advice(sent)}"
    else:
        message += own or "it gave no text"
    retry = row.retry if row else None
    if code == "2005" and sent.max_attempts > 1:
        retry = False
    return Fault(status, message, "ai_gateway_error", code, original=data, retry=retry, advice=advice)


def _plain(status: int, headers: Mapping[str, str], text: str, sent: Sent) -> Fault:
    """Tell the edge's plain text and HTML from an upstream's: what the gateway passed on has an id in its log."""
    if number := re.fullmatch(r"error code: (\d+)", text):
        return _edge(status, headers, number.group(1), text, text)
    logged = "cf-aig-log-id" in headers
    if not logged and (text.startswith("<") or (not text and "cf-ray" in headers)):
        return _edge(status, headers, str(status), _readable(text), text)
    return _upstream(status, text, text, sent)


def _edge(status: int, headers: Mapping[str, str], code: str, said: str, original: Any) -> Fault:
    """Explain what Cloudflare's edge answered before the gateway could."""
    meaning, remedy, retry = EDGE.get(code, ("", "try again later" if status >= 500 else "", None))  # noqa: PLR2004
    ray = f"cf-ray {headers['cf-ray']}" if "cf-ray" in headers else ""
    told = "; ".join(part for part in (meaning, said, ray, remedy) if part)
    message = f"{status} from Cloudflare's edge, before AI Gateway answered: {told}"
    advice = "; ".join(part for part in (meaning, remedy) if part)
    return Fault(status, message, "edge_error", code, original=original, retry=retry, advice=advice)


def _upstream(status: int, text: str, original: Any, sent: Sent) -> Fault:
    """Explain an error that the provider wrote in no form that the SDK can read."""
    who = "DeepSeek" if sent.to_deepseek else "the provider behind AI Gateway"
    remedy = deepseek_remedy(status, text, sent)
    message = f"{status} from {who}: {_readable(text)}{f'; {remedy}' if remedy else ''}"
    retry = False if final(status, sent) else None
    return Fault(status, message, "upstream_error", original=original, retry=retry, advice=remedy or "")


def _readable(text: str) -> str:
    """Shorten a text, or an HTML page to its title or words, for a message of one line."""
    if text.lstrip().startswith("<"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = title.group(1) if title else re.sub(r"<[^>]*>", " ", text)
    text = " ".join(text.split())
    return (text[:300] + "…" if len(text) > 300 else text) or "an empty body"  # noqa: PLR2004  # a line or three


class StreamCheck:
    """Whether an event stream came to its end, found without reading its events.

    A chat stream ends with `data: [DONE]`, one of `/responses` with a terminal event, which holds the whole answer and
    may span many network chunks. A gateway error in the place of the first event is explained like any other.
    """

    __slots__ = ("_held", "_hint", "_marks", "_on_fault", "_sent", "_started", "_tail", "arrived", "end", "seen")

    _KEPT = 128
    _DONE = re.compile(rb"\ndata: ?\[DONE\]")
    _TERMINAL = re.compile(rb'"type": ?"response\.(?:completed|failed|incomplete)"|\nevent: ?error\s')
    _FILLER = re.compile(rb"(?:\s|:[^\n]*\n)*")
    _FIRST = re.compile(rb"(?:(?:event|id|retry):[^\n]*\n)*data: ?(\{[^\n]*\})\r?\n\r?\n")

    def __init__(
        self, sent: Callable[[], Sent], on_fault: Callable[[Fault], object], *, expects_response: bool
    ) -> None:
        """Begin before the first byte.

        Args:
            sent: Tells of the request, should that be needed.
            on_fault: Is told of a gateway error in the place of the first event.
            expects_response: Whether it is a stream of `/responses`, and not one of chat.
        """
        self.arrived = 0
        self.end = "its last event" if expects_response else "[DONE]"
        self._sent = sent
        self._on_fault = on_fault
        self._marks = self._TERMINAL if expects_response else self._DONE
        self._hint = b"" if expects_response else b"[DONE]"  # a regular expression is slow to say no
        self._started = False
        self.seen = False
        self._held = b""
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> bytes:
        """Look at a network chunk and give what to pass on: the chunk itself, but for an error at the start."""
        self.arrived += len(chunk)
        window = self._tail + chunk
        if not self.seen and self._hint in window:
            self.seen = bool(self._marks.search(window))
        self._tail = window[-self._KEPT :]
        return chunk if self._started else self._first(chunk)

    def rest(self) -> bytes:
        """Give what is still held back when the body has ended."""
        held, self._held = self._held, b""
        return self._explained(held + b"\n\n") if held.strip() else held

    @property
    def complete(self) -> bool:
        """Whether the end has been seen; a terminal event must have come whole."""
        whole = self._marks is self._DONE or self._tail.replace(b"\r", b"").endswith(b"\n\n")
        return self.seen and whole

    def cut(self, reason: str) -> str:
        """Say that the stream is not whole."""
        return (
            f"The stream {reason} before {self.end}, after {self.arrived:,} bytes; what came until then was delivered."
        )

    def _first(self, chunk: bytes) -> bytes:
        """Hold back what may be an error until it is there whole; anything else passes at once."""
        self._held += chunk
        filler = self._FILLER.match(self._held)
        begun = self._held[filler.end() :] if filler else self._held
        whole = b"\n\n" in begun or b"\r\n\r\n" in begun
        if not whole and len(begun) < _LONGEST_ERROR and (len(begun) < self._KEPT or may_hold_a_fault(begun)):
            return b""
        self._started = True
        held, self._held = self._held, b""
        return self._explained(held)

    def _explained(self, held: bytes) -> bytes:
        filler = self._FILLER.match(held)
        start = filler.end() if filler else 0
        event = self._FIRST.match(held, start)
        if not event or not may_hold_a_fault(event.group(1)):
            return held
        fault = hidden_fault(event.group(1).decode("utf-8", "replace"), self._sent())
        if not fault or fault.type != "ai_gateway_error":
            return held
        self._on_fault(fault)
        return b"data: " + json.dumps(fault.body).encode() + b"\n\n" + held[event.end() :]


def as_events(answer: Object) -> bytes:
    """Turn a whole answer into the stream that was asked for; guardrails make the gateway answer so.

    (Cloudflare docs: features/guardrails/usage-considerations.)
    """
    if answer.get("object") == "response":
        events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _response_events(answer)]
        return "".join(events).encode()
    # Of a plain completion (FIM), the whole answer has the form of a chunk already.
    chunks = [answer] if answer.get("object") == "text_completion" else _chunks(answer)
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _chunks(answer: Object) -> Iterator[Object]:
    """Cut a chat completion into chunks as DeepSeek sends them: thinking, text, tool calls, reason and usage last."""
    common = {key: value for key, value in answer.items() if key not in {"object", "choices", "usage"}}
    common["object"] = "chat.completion.chunk"
    choices: list[Object] = answer["choices"]
    for number, choice in enumerate(choices):
        index = choice.get("index", number)
        message: Object = dict(choice["message"])
        tools: list[Object] = message.pop("tool_calls", None) or []
        finish = {"finish_reason": choice.get("finish_reason")}
        first = {"role": message.pop("role", "assistant")}
        deltas: list[Object] = [first, *({key: value} for key, value in message.items() if value)]
        deltas.sort(key=lambda delta: "content" in delta)  # thinking comes before the answer
        deltas += [{"tool_calls": [{"index": position, **call}]} for position, call in enumerate(tools)]
        for position, delta in enumerate(deltas):
            last = position == len(deltas) - 1
            told = {
                "logprobs": choice.get("logprobs") if last else None,
                **(finish if last else {"finish_reason": None}),
            }
            chunk = {**common, "choices": [{"index": index, "delta": delta, **told}]}
            if last and number == len(choices) - 1 and "usage" in answer:
                chunk["usage"] = answer["usage"]
            yield chunk


def _response_events(answer: Object) -> Iterator[Object]:
    """Tell a `/responses` object event by event, numbered, the whole of it last."""
    for number, event in enumerate(_unnumbered_events(answer)):
        yield {"type": event.pop("type"), "sequence_number": number, **event}


_PARTS = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
}


def _unnumbered_events(answer: Object) -> Iterator[Object]:
    begun: Object = {**answer, "status": "in_progress", "output": []}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(answer.get("output") or []):
        at = {"item_id": item.get("id", ""), "output_index": index}
        blank: Object = {"status": "in_progress", "content": [], "arguments": ""}
        empty = {**item, **{key: value for key, value in blank.items() if key in item}}
        yield {"type": "response.output_item.added", "output_index": index, "item": empty}
        for position, part in enumerate(item.get("content") or []):
            where = {**at, "content_index": position}
            name, field = _PARTS.get(part.get("type", ""), ("", ""))
            yield {"type": "response.content_part.added", **where, "part": {**part, field: ""} if field else part}
            if name:
                extra: Object = {"logprobs": part.get("logprobs") or []} if name == "output_text" else {}
                yield {"type": f"response.{name}.delta", **where, "delta": part.get(field, ""), **extra}
                yield {"type": f"response.{name}.done", **where, field: part.get(field, ""), **extra}
            yield {"type": "response.content_part.done", **where, "part": part}
        if "arguments" in item:
            told = {"name": item.get("name", ""), "arguments": item["arguments"]}
            yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **at, **told}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    status = answer.get("status")
    terminal = status if status in {"failed", "incomplete"} else "completed"
    yield {"type": f"response.{terminal}", "response": answer}
