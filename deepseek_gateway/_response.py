"""What comes back: every error in the form from which the SDK makes its exception. Pure functions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._codes import CODES, EDGE, TEXTS, Code, RequestFacts, deepseek_remedy
from ._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

Object: TypeAlias = dict[str, Any]

_ERRORS, _SERVER_ERRORS = range(400, 600), range(500, 600)
_BEGINNING = 512
_LONGEST_LINE, _LONGEST_PAGE = 300, 65_536


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in OpenAI's form, and whether a retry can help (None: the SDK decides by the status)."""

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
        """The text for a log. It holds our own words only, and nothing that somebody else wrote."""
        code = f" ({self.code})" if self.code else ""
        return f"{self.status} {self.type}{code}: {self.advice}" if self.advice else f"{self.status} {self.type}{code}"

    @property
    def body(self) -> Object:
        """The body from which every supported SDK reads `.message`, `.type`, `.code`, `.param` and `.body`."""
        error: Object = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error if self.original is None else {**error, "original": self.original}}


def request_id(headers: Mapping[str, str]) -> str | None:
    """Give the id to ask about: the gateway's log id, else DeepSeek's trace id, else the ray id of the edge."""
    return headers.get("cf-aig-log-id") or headers.get("x-ds-trace-id") or headers.get("cf-ray")


def content_type(headers: Mapping[str, str]) -> str:
    """Give the content type in lower case, or a blank text."""
    return headers.get("content-type", "").lower()


def may_be_mislabelled(headers: Mapping[str, str]) -> bool:
    """Whether a body may be a stream in spite of its content type."""
    return content_type(headers).startswith(("application/json", "text/html"))


def redirect_refused(status: int, location: str, facts: RequestFacts) -> Fault:
    """Say that a redirect was not followed. The path of its target could hold a secret and is not shown.

    Cloudflare Access, which may stand before a custom domain, redirects to its login (observed).
    """
    host = re.split("[?#]", location)[0].partition("://")[2].partition("/")[0].rpartition("@")[2]
    if host.endswith(".cloudflareaccess.com"):
        remedy = (
            f"This is the login of Cloudflare Access, which protects {VARIABLE['endpoint']}. Send the headers of a "
            "service token in default_headers: CF-Access-Client-Id and CF-Access-Client-Secret."
        )
    else:
        remedy = f"Check {VARIABLE['direct_endpoint' if facts.route == 'direct' else 'endpoint']}."
    whose = "DeepSeek's" if facts.route == "direct" else "The gateway's"
    message = (
        f"{whose} address answered with a redirect to {host or 'another path of the same host'}, which was not "
        f"followed, because your credentials would have gone there. {remedy}"
    )
    return Fault(status, message, "redirect_refused", "redirect_refused", retry=False)


def explain(status: int, headers: Mapping[str, str], text: str, facts: RequestFacts) -> Fault | None:
    """Put the error of a gateway, an edge or a plain-text upstream into OpenAI's form.

    A gateway error is a JSON object with `success: false` or a list of errors. Cloudflare's edge, which stands before
    the gateway, answers in plain text, HTML or problem JSON. Any other text that is not JSON is the upstream's. A body
    that is in OpenAI's form already, as DeepSeek's own errors are, gives None.
    """
    text = facts.hide(text)
    data = json_object(text)
    if data is None:
        return _not_json(status, headers, text.strip(), facts)
    error: Any = data.get("error")
    listed = isinstance(error, list) or isinstance(data.get("errors"), list)
    if listed or data.get("success") is False or data.get("name") == "AiGatewayError":
        return _gateway(status, data, facts)
    if isinstance(error, dict) and isinstance(cast("Object", error).get("message"), str):
        return None
    if "title" in data and "status" in data and facts.route != "direct":
        problem = ": ".join(str(data[key]) for key in ("title", "detail") if data.get(key))
        return _edge(status, headers, str(data["status"]), problem, data)
    message = next((data[key] for key in ("error", "message", "detail") if isinstance(data.get(key), str)), text)
    return _upstream(status, message.strip(), data, facts)


def is_a_completion(body: bytes) -> bool:
    """Whether a body looks like a whole chat completion. Such a body holds no error and is not parsed."""
    return _has_choices(body) and body.startswith(b"{") and body.endswith(b"}")


def may_hold_a_fault(body: bytes) -> bool:
    """Whether a body that came with status 200 needs to be parsed to look for an error."""
    return not _has_choices(body) and (b'"error"' in body or b'"success"' in body)


def _has_choices(body: bytes) -> bool:
    choices = body.find(b'"choices":', 0, _BEGINNING)
    return choices > 0 and body.count(b"{", 0, choices) == 1  # a member of the outermost object


def hidden_fault(text: str, facts: RequestFacts) -> Fault | None:
    """Find the error in a response that came with status 200. It takes the status in its body, else 502."""
    text = facts.hide(text)
    data = json_object(text)
    if data is None:
        return None
    error: Any = data.get("error") or data.get("errors")
    by_gateway = data.get("success") is False
    if not (error or by_gateway) or data.get("object") == "response" or "choices" in data:
        return None  # an object of `/responses` reports its own failure
    if facts.method != "POST" and not by_gateway:
        return None  # a file that is downloaded may hold anything
    own = cast("Object", error) if isinstance(error, dict) else {}
    numbers = (data.get("httpCode"), own.get("status"), own.get("code"))
    status = next((number for number in numbers if isinstance(number, int) and number in _ERRORS), 502)
    if fault := explain(status, {}, text, facts):
        return fault
    kind, code, param = (None if own.get(key) is None else str(own[key]) for key in ("type", "code", "param"))
    return Fault(status, own["message"], kind or "upstream_error", code, param, original=data)


def not_an_answer(content_type: str, text: str, facts: RequestFacts, wanted: str) -> Fault:
    """Say that a successful response is neither what was wanted nor an error."""
    what = f"200 came with {content_type or 'no content type'} in place of {wanted}"
    text = facts.hide(text)
    return Fault(502, f"{what}: {_one_line(text)}", "upstream_error", original=text, retry=False, advice=what)


def json_object(text: str | bytes) -> Object | None:
    """Read a JSON object. Anything else gives None, also an object that is nested too deeply to be read."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("Object", data) if isinstance(data, dict) else None


def final(status: int, facts: RequestFacts) -> bool:
    """Whether an upstream failure is final, because the gateway was asked for several attempts and has made them."""
    return facts.max_attempts > 1 and (status in {408, 409, 429} or status in _SERVER_ERRORS)  # the SDK's own list


def _gateway(status: int, data: Object, facts: RequestFacts) -> Fault:
    """Explain an error that the gateway made, in any of its envelopes."""
    entries: Any = data.get("error") or data.get("errors") or {}
    first = cast("list[Object]", entries)[0] if isinstance(entries, list) else entries
    entry = cast("Object", first) if isinstance(first, dict) else {"message": first}
    number = entry.get("code", data.get("internalCode"))
    code = None if number is None else str(number)
    text = str(entry.get("message") or data.get("message") or data.get("description") or "").strip()
    known = next((row for start, row in TEXTS.items() if text.lower().startswith(start)), None)
    row = known or CODES.get(code or "")
    original = " ".join(part for part in (code, text) if part)
    advice = f"{row.meaning}; {row.advice(facts)}" if row else ""
    explained = f"{row.meaning} ({original}); {row.advice(facts)}" if row else original or "it gave no text"
    retry = False if code == "2005" and facts.max_attempts > 1 else row.retry if row else None
    message = f"{status} from AI Gateway, not from DeepSeek: {explained}"
    return Fault(status, message, "ai_gateway_error", code, original=data, retry=retry, advice=advice)


def _not_json(status: int, headers: Mapping[str, str], text: str, facts: RequestFacts) -> Fault:
    """Tell the edge's plain text and HTML from an upstream's: the gateway gives what it passes on a log id."""
    if facts.route == "direct":
        return _upstream(status, text, text, facts)
    if number := re.fullmatch(r"error code: (\d+)", text):
        return _edge(status, headers, number.group(1), text, text)
    if text == "Your request was blocked.":
        return _edge(status, headers, "blocked", text, text)
    if "cf-aig-log-id" not in headers and (text.startswith("<") or (not text and "cf-ray" in headers)):
        return _edge(status, headers, str(status), _one_line(text), text)
    return _upstream(status, text, text, facts)


def _edge(status: int, headers: Mapping[str, str], code: str, text: str, original: Any) -> Fault:
    """Explain a response of Cloudflare's edge, which came before the gateway could answer."""
    row = EDGE.get(code) or Code("", "try again later" if status in _SERVER_ERRORS else "", None)
    remedy = str(row.remedy)
    ray = f"cf-ray {headers['cf-ray']}" if "cf-ray" in headers else ""
    explained = "; ".join(part for part in (row.meaning, text, ray, remedy) if part)
    message = f"{status} from Cloudflare's edge, before AI Gateway answered: {explained}"
    advice = "; ".join(part for part in (row.meaning, remedy) if part)
    return Fault(status, message, "edge_error", code, original=original, retry=row.retry, advice=advice)


def _upstream(status: int, text: str, original: Any, facts: RequestFacts) -> Fault:
    """Explain an error that the provider wrote in a form that the SDK cannot read."""
    who = "DeepSeek" if facts.to_deepseek else "the provider behind AI Gateway"
    remedy = deepseek_remedy(status, text, facts)
    message = f"{status} from {who}: {_one_line(text)}{f'; {remedy}' if remedy else ''}"
    retry = False if final(status, facts) else None
    return Fault(status, message, "upstream_error", original=original, retry=retry, advice=remedy or "")


def _one_line(text: str) -> str:
    """Shorten a text, or an HTML page to its title or words, to one line for a message."""
    text = text[:_LONGEST_PAGE]
    if text.lstrip().startswith("<"):
        # No part of these patterns runs past the next "<", so that the time grows with the length only.
        title = re.search(r"<title[^<>]*>([^<]*)</title>", text, re.IGNORECASE)
        text = title.group(1) if title else re.sub(r"<[^<>]*>", " ", text)
    text = " ".join(text.split())
    return (text[:_LONGEST_LINE] + "…" if len(text) > _LONGEST_LINE else text) or "an empty body"
