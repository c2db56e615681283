"""What comes back from the gateway, made such that the SDK gives or raises what an OpenAI user expects.

Pure functions of status, headers and body; the facts are those of Cloudflare's and DeepSeek's documentation and of
answers captured from the live service.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._codes import CODES, EDGE, TEXTS, RequestFacts, deepseek_remedy
from ._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

Object: TypeAlias = dict[str, Any]

_FAULTS = range(400, 600)
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


def explain(status: int, headers: Mapping[str, str], text: str, sent: RequestFacts) -> Fault | None:
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


def hidden_fault(text: str, sent: RequestFacts) -> Fault | None:
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


def not_a_stream(content_type: str, text: str, sent: RequestFacts) -> Fault:
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


def final(status: int, sent: RequestFacts) -> bool:
    """Whether the upstream's failure is final, because the gateway was asked to try several times and has."""
    return sent.max_attempts > 1 and (status in {408, 409, 429} or status >= 500)  # noqa: PLR2004  # the SDK's own list


def _gateway(status: int, data: Object, sent: RequestFacts) -> Fault:
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


def _plain(status: int, headers: Mapping[str, str], text: str, sent: RequestFacts) -> Fault:
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


def _upstream(status: int, text: str, original: Any, sent: RequestFacts) -> Fault:
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
