"""The one short completion of `doctor`: what its connection, its answer and its failure show.

It uses the client that every program gets, so it meets the same proxies, trusted certificates and credentials.
"""

from __future__ import annotations

import socket
import ssl
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import openai

from deepseek_gateway._client import create_client
from deepseek_gateway._codes import CODES, TEXTS, RequestFacts, deepseek_remedy
from deepseek_gateway._headers import gateway_headers
from deepseek_gateway._model import model_named
from deepseek_gateway._request import request_facts
from deepseek_gateway._settings import VARIABLE

from .ask import Answer, arguments
from .options import explanation, printable, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2 as httpx

    from deepseek_gateway._config import GatewayConfig
else:
    from deepseek_gateway._connections import httpx  # the one that openai itself uses


# The check that fails, by code or status. All others are limits, policies or guardrails between the gateway and
# DeepSeek, or failures of DeepSeek.
_CHECK_OF = {
    **dict.fromkeys(("2001", "2008", "2019", "7000", "7001", "404", "405"), "gateway"),
    **dict.fromkeys(("2009", "10000"), "gateway authentication"),
    **dict.fromkeys(("2021", "2040", "401"), "DeepSeek key"),
    "402": "DeepSeek balance",
    **dict.fromkeys(("7003", "400", "422"), "model accepted"),
}


class Failure(NamedTuple):
    """The check at which the completion failed, and why; it passed those before, and did not reach those after."""

    check: str
    found: str
    remedy: str


@dataclass
class Probe:
    """A completion, and what was seen on the way to its answer."""

    config: GatewayConfig
    model: str
    host: str = ""
    port: int = 0
    place: str = ""
    proxied: bool = False
    address: str = "known"
    tls: str = "none is needed, because plain HTTP stays on this computer"
    authentication: str = "the gateway asks for none"
    key: str = ""
    reached: str = "name resolution"
    facts: RequestFacts | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    clock: float = 0.0
    arrivals: list[float] = field(default_factory=list[float])
    answer: Answer = field(default_factory=Answer)
    error: Exception | None = None

    def run(self) -> Probe:
        """Ask for one short streamed completion, once; a failure of any kind is kept."""
        url = httpx.URL(self.config.base_url)
        self.host = self.place = url.raw_host.decode()
        self.port = url.port or (443 if url.scheme == "https" else 80)
        hooks = {"event_hooks": {"request": [self._on_request], "response": [self._on_response]}}
        try:
            config = replace(self.config, fallback=None)  # it would hide that the gateway is down
            with create_client(config, timeout=30, max_retries=0, http_options=hooks) as client:
                create: Any = client.chat.completions.create
                prompt = f"Say yes. ({time.time_ns()})"  # no cache has seen it, so key and model are tried
                question = arguments(prompt=prompt, model=self.model, headers=gateway_headers(max_attempts=1))
                for chunk in create(**question, max_tokens=16):
                    self.answer.add(chunk)
        except Exception as error:  # noqa: BLE001  # every error is a finding
            self.error = error
        return self

    @property
    def address_variable(self) -> str:
        """The variable that leads to another address."""
        return VARIABLE["direct_endpoint" if self.config.route == "direct" else "endpoint"]

    @property
    def failure(self) -> Failure | None:
        """Why the completion failed, if it did."""
        if self.error is None:
            return None
        refused = self.facts and (isinstance(self.error, openai.APIStatusError) or getattr(self.error, "type", None))
        failure = _refused(cast("openai.APIError", self.error), self) if refused else _lost(self.error, self)
        if failure.check == "gateway" and self.config.route == "direct":
            return failure._replace(check="DeepSeek reached")
        return failure

    def direct_error(self) -> str:
        """Ask DeepSeek itself for its list of models, which costs nothing, and say why that failed, if it did."""
        config = replace(self.config, route="direct")
        try:
            with create_client(config, timeout=30, max_retries=0) as client:
                client.models.list()
        except openai.OpenAIError as error:
            return self.readable(explanation(error, None))
        return ""

    @property
    def answered(self) -> str:
        """The model that was asked, and the one that answered if it has another name."""
        same = self.answer.model in {None, self.model, self.facts and self.facts.model}
        return f"{self.model} answered" if same else f"{self.model} answered as {self.answer.model}"

    @property
    def traceback(self) -> str:
        """The traceback of the failure, without credentials."""
        text = "".join(traceback.format_exception(self.error)) if self.error else ""
        return printable(without_secrets(text, asdict(self.config)))

    def readable(self, text: object) -> str:
        """Write somebody else's text in one line, without credentials and control characters."""
        return printable(" ".join(without_secrets(str(text), asdict(self.config)).split()))

    def _on_request(self, request: httpx.Request) -> None:
        self.facts = facts = request_facts(request, self.config, model_named(request))
        if facts.gateway_token:
            self.authentication = f"the token in {VARIABLE['gateway_token']} was accepted"
        self.key = "the key stored at Cloudflare" if facts.key_is_stored else f"the key in {VARIABLE['api_key']}"
        request.extensions["trace"] = self._on_step
        self.arrivals.append(time.perf_counter())

    def _on_step(self, event: str, info: dict[str, Any]) -> None:
        """Follow the connection: the `trace` extension of httpcore, as httpx documents it."""
        step = event.partition(".")[2]
        if step == "connect_tcp.started":
            self.proxied = info["host"] != self.host
            self.host, self.port, self.reached = info["host"], info["port"], "TCP connection"
            self.place = f"the proxy {self.host}" if self.proxied else self.host
        elif step == "connect_tcp.complete":
            self.address = f"at {info['return_value'].get_extra_info('server_addr')[0]}"
            self.reached = "TLS certificate" if self.config.base_url.startswith("https:") else "gateway"
        elif step == "start_tls.complete":
            self.tls = _described(info["return_value"].get_extra_info("ssl_object"))
            self.reached = "gateway"

    def _on_response(self, response: httpx.Response) -> None:
        """Note the answer as it came, before the client explains it."""
        self.status, self.headers, self.clock = response.status_code, dict(response.headers), time.time()
        if response.is_success:
            self.reached = "streaming"
        response.stream = _Timed(response.stream, self.arrivals)


@dataclass
class _Timed(httpx.SyncByteStream):
    """A body that notes the time at which each of its pieces arrives."""

    inner: Any
    arrivals: list[float]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.inner:
            self.arrivals.append(time.perf_counter())
            yield piece

    def close(self) -> None:
        self.inner.close()


def _described(ssl_object: Any) -> str:
    """Describe a verified certificate, as far as the system tells."""
    certificate: dict[str, Any] = ssl_object.getpeercert() or {}
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    names = ", ".join(issuer[name] for name in ("organizationName", "commonName") if issuer.get(name))
    expires = certificate.get("notAfter", "an unknown date")
    return f"{ssl_object.version() or 'TLS'}, issued by {names or 'an unnamed CA'}, valid until {expires}"


def _elsewhere(probe: Probe) -> str:
    return f"check {probe.address_variable}, and whether a proxy or a login page answers in its place"


def _refused(error: openai.APIError, probe: Probe) -> Failure:
    """Tell who refused the request, from the exception that every program gets."""
    code, kind, status = str(error.code), str(error.type), getattr(error, "status_code", probe.status or 0)
    given: Any = error.body
    body = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    text = probe.readable(body.get("message") or error.message)  # the latter repeats the whole body
    facts = cast("RequestFacts", probe.facts)  # only a request that was sent is refused
    if kind == "ai_gateway_error":
        row = CODES.get(code) or next((row for start, row in TEXTS.items() if start in text.lower()), None)
        check = _CHECK_OF.get(code, "gateway authentication" if status == HTTPStatus.FORBIDDEN else "DeepSeek reached")
        if row:
            return Failure(check, f"{row.meaning} ({status} {code})", probe.readable(row.advice(facts)))
        return Failure(check, text, "see the gateway's settings and logs in the Cloudflare dashboard")
    if kind in {"edge_error", "redirect_refused"} or (probe.status == HTTPStatus.OK and kind == "upstream_error"):
        return Failure("gateway", text, _elsewhere(probe))
    check = _CHECK_OF.get(str(status), "DeepSeek reached")
    if check == "gateway":
        return Failure(check, text, f"check {probe.address_variable}: nothing is at the address made from it")
    remedy = deepseek_remedy(status, text, facts) or "try again later; if it stays so, ask DeepSeek"
    return Failure(check, f"{status} from DeepSeek: {text}", remedy)


def _lost(error: Exception, probe: Probe) -> Failure:
    """Tell where a connection failed, from the causes of the exception."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    where = f"{probe.host}:{probe.port}"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            remedy = f"check the network, DNS, and the spelling of the host in {probe.address_variable} or of the proxy"
            return Failure("name resolution", f"{probe.host} has no address: {cause.strerror}", remedy)
        if isinstance(cause, ssl.SSLError) and probe.status is None:
            return _untrusted(cause, where, probe)
        if isinstance(cause, httpx.ProxyError):
            remedy = "check user and password of the proxy in HTTPS_PROXY, or name the gateway's host in NO_PROXY"
            found = f"the proxy {where} refused to connect: {probe.readable(cause)}"
            return Failure("TCP connection", found, remedy)
    if probe.reached == "streaming":
        remedy = "try again; if it stays so, something between here and DeepSeek ends streams: a proxy, a firewall"
        return Failure("streaming", probe.readable(error), remedy)
    remedy = f"check that a firewall or proxy lets you through to it, and {probe.address_variable}"
    if probe.proxied and probe.reached == "TCP connection":
        remedy = "check the proxy's address in HTTPS_PROXY, or name the gateway's host in NO_PROXY"
    if probe.reached == "name resolution":  # no connection was even begun
        remedy = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
    why = probe.readable(causes[-1]) or type(causes[-1]).__name__
    return Failure(probe.reached, f"{where}: {why}", remedy)


def _untrusted(error: ssl.SSLError, where: str, probe: Probe) -> Failure:
    """Say what is wrong with a certificate or a handshake."""
    text = getattr(error, "verify_message", "") or (error.reason or "").replace("_", " ").lower() or "no handshake"
    if "not yet valid" in text or "expired" in text:
        remedy = "set this computer's clock; if it is right, whoever runs the server must renew the certificate"
    elif "mismatch" in text or "not valid for" in text:
        remedy = _elsewhere(probe)
    elif isinstance(error, ssl.SSLCertVerificationError):
        remedy = "if your network inspects TLS, set SSL_CERT_FILE to a file with its CA and all others that you need"
    else:
        remedy = f"check {probe.address_variable}: what listens there does not speak TLS as it should"
    return Failure("TLS certificate", f"{where}: {text}", remedy)
