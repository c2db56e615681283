"""The one short completion of `deepseek-gateway doctor`: what its connection, its answer and its failure tell.

It is made with the client that every program gets, so proxies, trusted certificates and credentials are those that
count, and nothing else is ever connected to.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
import traceback
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import openai

from deepseek_gateway._client import create_client
from deepseek_gateway._codes import CODES, TEXTS, RequestFacts, deepseek_remedy
from deepseek_gateway._headers import gateway_headers
from deepseek_gateway._request import model_on
from deepseek_gateway._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2 as httpx

    from deepseek_gateway._config import GatewayConfig
else:
    from deepseek_gateway._connections import httpx  # the one that openai itself uses

_SECONDS = 30
_TOKENS = 16


class Certificate(NamedTuple):
    """What was learnt of a server's certificate, which was verified; empty where the system does not tell."""

    protocol: str
    issuer: str
    expires: str


class Trouble(NamedTuple):
    """Why a check failed."""

    check: str
    found: str
    remedy: str


@dataclass(slots=True)
class Outcome:
    """How far the completion came, and what was seen on the way."""

    sent: RequestFacts
    host: str
    port: int
    secure: bool
    proxied: bool = False
    reached: str = "name resolution"
    address: str = ""
    certificate: Certificate | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    clock: float = 0.0
    arrivals: list[float] = field(default_factory=list[float])
    chunks: int = 0
    model: str = ""
    error: Exception | None = None

    @property
    def trouble(self) -> Trouble | None:
        """The one check at which the completion failed; those before it passed, those after it were not reached."""
        if self.error is None:
            return None
        if isinstance(self.error, openai.APIError) and (
            self.error.type or isinstance(self.error, openai.APIStatusError)
        ):
            return _refused(self.error, self)
        return _lost(self.error, self)

    @property
    def traceback(self) -> str:
        """The traceback of the failure, without credentials."""
        return self.readable("".join(traceback.format_exception(self.error)), line=False) if self.error else ""

    def readable(self, text: str, *, line: bool = True) -> str:
        """Take credentials, also the parts that DeepSeek repeats, and control characters out of somebody's text."""
        text = re.sub(r"(api key: )\S+", r"\1[redacted]", self.sent.hide(text), flags=re.IGNORECASE)
        text = " ".join(text.split()) if line else text
        return "".join(each for each in text if each.isprintable() or each == "\n")

    def see_step(self, event: str, info: dict[str, Any]) -> None:
        """Follow the connection: the `trace` extension of httpcore, as httpx documents it."""
        step = event.partition(".")[2]
        if step == "connect_tcp.started":
            self.proxied = info["host"] != self.host
            self.host, self.port, self.reached = info["host"], info["port"], "TCP connection"
        elif step == "connect_tcp.complete":
            self.address = info["return_value"].get_extra_info("server_addr")[0]
            self.reached = "TLS certificate" if self.secure else "gateway"
        elif step == "start_tls.complete":
            self.certificate = _certificate(info["return_value"].get_extra_info("ssl_object"))
            self.reached = "gateway"

    def see_answer(self, response: httpx.Response) -> None:
        """Note an answer as it came, before anything is made of it."""
        self.status, self.headers, self.clock = response.status_code, dict(response.headers), time.time()
        if response.is_success:
            self.reached = "streaming"
        response.stream = _Arriving(response.stream, self.arrivals)


class _Arriving(httpx.SyncByteStream):
    """A body on its way, with the time at which each piece of it came, the answer's headers being the first."""

    def __init__(self, inner: Any, arrivals: list[float]) -> None:
        self._inner = inner
        self._arrivals = arrivals

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._arrivals.append(time.perf_counter())
            yield piece

    def close(self) -> None:
        self._inner.close()


def probe(config: GatewayConfig, model: str) -> Outcome:
    """Ask for one short streamed completion, once.

    Args:
        config: Settings that suffice.
        model: A model that the route can reach.

    Returns:
        What happened; failures of any kind are part of it.
    """
    url, key = httpx.URL(config.base_url), None if config.route == "rest" else config.api_key
    outcome = Outcome(
        RequestFacts(
            method="POST",
            route=config.route,
            authorization=key is not None,
            gateway_token=config.gateway_token is not None,
            key_is_stored=key is None,
            model=model_on(config.route, model),
            max_attempts=1,
            secrets=tuple(filter(None, (config.api_key, config.gateway_token))),
        ),
        url.host,
        url.port or (443 if url.scheme == "https" else 80),
        url.scheme == "https",
    )

    def see_request(request: httpx.Request) -> None:
        request.extensions["trace"] = outcome.see_step
        outcome.arrivals.append(time.perf_counter())

    hooks = {"event_hooks": {"request": [see_request], "response": [outcome.see_answer]}}
    try:
        with create_client(config, timeout=_SECONDS, max_retries=0, http_options=hooks) as client:
            for chunk in client.chat.completions.create(
                model=model,
                # No cache has seen this question, or neither key nor model would be tried.
                messages=[{"role": "user", "content": f"Say yes. ({time.time_ns()})"}],
                max_tokens=_TOKENS,
                stream=True,
                extra_headers=gateway_headers(max_attempts=1),
            ):
                outcome.chunks += 1
                outcome.model = outcome.model or getattr(chunk, "model", None) or ""
    except Exception as error:  # noqa: BLE001  # whatever it is, it is to be told
        outcome.error = error
    return outcome


def _certificate(ssl_object: Any) -> Certificate:
    told: dict[str, Any] = ssl_object.getpeercert() or {}
    issuer = {name: value for part in told.get("issuer", ()) for name, value in part}
    names = (issuer.get("organizationName"), issuer.get("commonName"))
    return Certificate(ssl_object.version() or "", ", ".join(filter(None, names)), told.get("notAfter", ""))


# At which check a failure belongs, by its code or status; whatever is in none of them is DeepSeek's, or a limit,
# policy or guardrail between the gateway and DeepSeek.
_CHECK_OF = {
    **dict.fromkeys(("2001", "2008", "2019", "7000", "7001", "404", "405"), "gateway"),
    **dict.fromkeys(("2009", "10000"), "gateway authentication"),
    **dict.fromkeys(("2021", "2040", "401"), "DeepSeek key"),
    "402": "DeepSeek balance",
    **dict.fromkeys(("7003", "400", "422"), "model accepted"),
}


def _refused(error: openai.APIError, outcome: Outcome) -> Trouble:
    """Tell who refused, from the exception that every program gets."""
    code, kind, status = str(error.code), str(error.type), getattr(error, "status_code", outcome.status or 0)
    given: Any = error.body
    body = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    said = outcome.readable(str(body.get("message") or error.message))  # the latter has the whole body in it
    if kind == "ai_gateway_error":
        row = CODES.get(code) or next((row for start, row in TEXTS.items() if start in said.lower()), None)
        check = _CHECK_OF.get(code, "gateway authentication" if status == HTTPStatus.FORBIDDEN else "DeepSeek reached")
        if row:
            return Trouble(check, f"{row.meaning} ({status} {code})", outcome.readable(row.advice(outcome.sent)))
        return Trouble(check, said, "see the gateway's settings and logs in the Cloudflare dashboard")
    if kind in {"edge_error", "redirect_refused"} or (outcome.status == HTTPStatus.OK and kind == "upstream_error"):
        remedy = f"check {VARIABLE['endpoint']}, and whether a proxy or a login page answers in its place"
        return Trouble("gateway", said, remedy)
    check = _CHECK_OF.get(str(status), "DeepSeek reached")
    if check == "gateway":
        return Trouble(check, said, f"check {VARIABLE['endpoint']}: nothing is at the address made from it")
    remedy = deepseek_remedy(status, said, outcome.sent) or "try again later; if it stays so, ask DeepSeek"
    return Trouble(check, f"{status} from DeepSeek: {said}", remedy)


def _lost(error: Exception, outcome: Outcome) -> Trouble:
    """Tell where a connection failed, from what the exception was made of."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)  # type: ignore[arg-type]
    where = f"{outcome.host}:{outcome.port}"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            remedy = (
                f"check this computer's network and DNS, and the spelling in {VARIABLE['endpoint']} or of the proxy"
            )
            return Trouble("name resolution", f"{outcome.host} has no address: {cause.strerror}", remedy)
        if isinstance(cause, ssl.SSLError) and outcome.status is None:
            return _untrusted(cause, where)
        if isinstance(cause, httpx.ProxyError):
            remedy = "check user and password of the proxy in HTTPS_PROXY, or name the gateway's host in NO_PROXY"
            return Trouble(
                "TCP connection", f"the proxy {where} refused to connect: {outcome.readable(str(cause))}", remedy
            )
    why = outcome.readable(str(causes[-1])) or type(causes[-1]).__name__
    if outcome.reached == "streaming":
        remedy = "try again; if it stays so, something between here and DeepSeek ends streams: a proxy, a firewall"
        return Trouble("streaming", outcome.readable(str(error)), remedy)
    remedy = f"check that a firewall or proxy lets you through to it, and {VARIABLE['endpoint']}"
    if outcome.proxied and outcome.reached == "TCP connection":
        remedy = "check the proxy's address in HTTPS_PROXY, or name the gateway's host in NO_PROXY"
    if outcome.reached == "name resolution":  # nothing was even begun
        remedy = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
    return Trouble(outcome.reached, f"{where}: {why}", remedy)


def _untrusted(error: ssl.SSLError, where: str) -> Trouble:
    """Say what is wrong with a certificate or a handshake."""
    said = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or "no handshake"
    if "not yet valid" in said or "expired" in said:
        remedy = "set this computer's clock right; if it is, whoever runs the server must renew the certificate"
    elif "mismatch" in said or "not valid for" in said:
        remedy = f"check {VARIABLE['endpoint']}, and whether a proxy or a login page answers in its place"
    elif isinstance(error, ssl.SSLCertVerificationError):
        remedy = (
            "if your network inspects TLS, set SSL_CERT_FILE to a file with its CA certificate and all others you need"
        )
    else:
        remedy = f"check {VARIABLE['endpoint']}: what listens there does not speak TLS as it should"
    return Trouble("TLS certificate", f"{where}: {said}", remedy)
