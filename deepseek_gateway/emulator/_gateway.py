"""The emulated AI Gateway: admission (`_routes`), rate limit, scanners, cache, DeepSeek, scanners, labels."""

import asyncio
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace

from starlette.datastructures import Headers

from deepseek_gateway.emulator._deepseek import DeepSeek
from deepseek_gateway.emulator._errors import Refusal, dlp_header, gateway_refusal
from deepseek_gateway.emulator._faults import Fault
from deepseek_gateway.emulator._features import PRICES, Cache, Window, cost_of, matches, number, reframed, skips_cache
from deepseek_gateway.emulator._ids import CREATED, digest
from deepseek_gateway.emulator._routes import Passage, admit, locate
from deepseek_gateway.emulator._settings import Settings
from deepseek_gateway.emulator._wire import Delivery, Pairs, ReceivedRequest, Reply

_MAX_ATTEMPTS, _MAX_DELAY = 5, 60_000
_RETRIED = {429, *range(500, 600)}
# The headers of DeepSeek's own host since June 2026 (recorded), but for those that name a connection.
_CLOUDFRONT: Pairs = (
    ("server", "elb"),
    ("vary", "origin, access-control-request-method, access-control-request-headers"),
    ("access-control-allow-credentials", "true"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("via", "1.1 emulator.cloudfront.net (CloudFront)"),
)


@dataclass(eq=False)
class _GaveUpError(Exception):
    """Cloudflare's edge did not wait for the gateway, which had asked DeepSeek already."""

    fault: Fault


class Gateway:
    """The gateway of one account, with `upstream` behind it."""

    def __init__(self, settings: Settings, upstream: DeepSeek) -> None:
        self._settings = settings
        self._upstream = upstream
        self.pace = settings.pace
        self._count = 0
        self.faults: deque[Fault] = deque()
        self.cache = Cache(settings.cache_ttl)
        self.reset()

    def reset(self) -> None:
        """Forget the failures to come, and what was cached and counted."""
        self.faults.clear()
        self.cache.clear()
        self._rate, self._spending = Window(self._settings.rate_limit), Window(self._settings.spend_limit)

    async def answer(self, request: ReceivedRequest) -> Reply:
        """Take `request` through the gateway or past it, and note its attempts and cost on it."""
        self._count += 1
        count, target = self._count, locate(request.path)
        if target.route == "direct":
            return await self._ask_directly(request, target.path)
        try:
            if fault := self._due(early=True):
                await asyncio.sleep(fault.delivery.delay)
                reply = fault.strike(Reply(status=200), target.route)
                logged = not fault.edge and (fault.error is None or fault.error.logged)
            else:
                admitted = admit(request, target, self._settings)
                reply = admitted if isinstance(admitted, Reply) else await self._pass(request, admitted, target.route)
                logged = True
        except Refusal as refusal:
            reply, logged = refusal.error.reply(target.route), refusal.error.logged
        except _GaveUpError as error:
            reply, logged = error.fault.strike(Reply(status=200), target.route), False
        ray = f"{digest('ray', count)[:16]}-LOC"
        log = _log_headers(count, request.headers) if logged else ()
        return reply.with_headers(("server", "cloudflare"), ("cf-ray", ray), *log)

    async def _ask_directly(self, request: ReceivedRequest, path: str) -> Reply:
        """Return DeepSeek's response as its own host sends it: with the headers of CloudFront (recorded)."""
        forwarded = replace(request, path=path, attempts=[])
        request.attempts.append(forwarded)
        reply = await self._attempt(request, forwarded, "direct")
        if reply is None:
            return Reply(status=200, delivery=Delivery(reset=True))
        result = "Miss" if reply.status < 400 else "Error"  # noqa: PLR2004
        return reply.with_headers(("x-cache", f"{result} from cloudfront"), *_CLOUDFRONT)

    async def _pass(self, request: ReceivedRequest, passage: Passage, route: str) -> Reply:
        """Return DeepSeek's response, unless a limit or a scanner is against it; a header reports what DLP flags.

        Guardrails turn a stream into one JSON body, but on the REST API they leave responses alone (Cloudflare docs:
        features/guardrails/usage-considerations).
        """
        guardrails, dlp = self._settings.guardrails, self._settings.dlp
        if self._rate.full:
            raise gateway_refusal(2003)
        self._rate.add(1)
        if matches(guardrails, passage.forwarded.body):
            raise gateway_refusal(2016)
        in_request = {dlp[text] for text in matches(dlp, passage.forwarded.body)}
        if "BLOCK" in in_request:
            raise gateway_refusal(2029)
        reply = await self._fetch(request, passage.forwarded, route)
        if guardrails is not None and route != "rest":
            if matches(guardrails, reply.body):
                raise gateway_refusal(2017)
            reply = reply.as_one_body()
        in_response = {dlp[text] for text in matches(dlp, reply.body)}
        if "BLOCK" in in_response:
            raise gateway_refusal(2030)
        flagged = [check for check, actions in (("REQUEST", in_request), ("RESPONSE", in_response)) if actions]
        reply = reframed(reply, padding=self._settings.padding, crlf=self._settings.crlf)
        return reply.with_headers(*passage.headers, *((dlp_header("FLAG", *flagged),) if flagged else ()))

    async def _fetch(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Reply:
        """Get the response from the cache, for nothing and despite a reached spend limit, or from DeepSeek.

        The cache is passed over while an answer of `answer_next()` waits, or a test would get another answer. Streams
        and requests that skip the cache are a MISS too (observed). Whether the other responses without a cache have the
        header is unknown; here they do not.

        A model without a price has no spend limit (Cloudflare docs: features/policies, features/spend-limits).
        """
        slot = self.cache.slot(request, forwarded, route)
        if slot and not self._upstream.answers.queue and (kept := self.cache.get(slot[0])):
            request.cost = 0.0
            return kept.with_headers(("cf-aig-cache-status", "HIT"))
        prices = request.custom_cost or PRICES.get(forwarded.model)
        if prices is not None and self._spending.full:
            limit, seconds = self._settings.spend_limit or (0, 0)
            rule = f"rule 'emulator' (cost limit {limit:g} per {seconds:g}s, sliding)"
            raise gateway_refusal(2045, f"Spend limit exceeded: {rule} for deepseek {forwarded.model}")
        reply = await self._ask_upstream(request, forwarded, route)
        request.cost = cost_of(reply, prices)
        self._spending.add(request.cost or 0.0)
        if slot:
            self.cache.put(*slot, reply)
        missed = slot or reply.streamed or skips_cache(request.headers)
        return reply.with_headers(("cf-aig-cache-status", "MISS")) if missed else reply

    async def _ask_upstream(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Reply:
        """Ask DeepSeek, and retry as the headers say (Cloudflare docs: configuration/request-handling).

        What counts as a failure is not documented; here it is: no connection, no response within
        `cf-aig-request-timeout`, 429, and 5xx. The last of several attempts has no timeout. Then DeepSeek's error is
        passed on. Without one the error is 2005; the code of a timeout is unknown.
        """
        headers = request.headers
        attempts = min(max(number(headers, "cf-aig-max-attempts") or 1, 1), _MAX_ATTEMPTS)
        delay = min(number(headers, "cf-aig-retry-delay") or 0, _MAX_DELAY) / 1000
        timeout = (number(headers, "cf-aig-request-timeout") or 0) / 1000 or None
        reply: Reply | None = None
        for retry in range(attempts):
            if retry:
                growth = {"linear": retry, "exponential": 2 ** (retry - 1)}
                await asyncio.sleep(delay * growth.get(headers.get("cf-aig-backoff", "constant"), 1))
            request.attempts.append(forwarded)
            reply = None
            with suppress(TimeoutError):
                async with asyncio.timeout(None if 0 < retry == attempts - 1 else timeout):
                    reply = await self._attempt(request, forwarded, route)
            if reply is not None and reply.status not in _RETRIED:
                break
        if reply is None:
            raise gateway_refusal(2005)
        return reply

    async def _attempt(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Reply | None:
        """Ask DeepSeek once; None means that DeepSeek could not be reached."""
        fault = self._due(direct=route == "direct")
        await asyncio.sleep(fault.delivery.delay if fault and fault.delivery.latency else self._settings.latency)
        if fault is None:
            return self._upstream.answer(request, forwarded)
        if fault.unreachable or fault.delivery.reset:
            return None
        if fault.edge:
            raise _GaveUpError(fault)
        error = fault.reply(route) if fault.event is None else None
        return fault.strike(self._upstream.answer(request, forwarded, error), route)

    def _due(self, *, early: bool = False, direct: bool = False) -> Fault | None:
        """Take the next failure off the queue if it strikes here."""
        if not self.faults:
            return None
        fault = self.faults[0]
        strikes = not fault.cloudflare if direct else fault.early == early
        return self.faults.popleft() if strikes else None


def _log_headers(count: int, headers: Headers) -> Pairs:
    """Return the headers of a logged response; step 0 is an ordinary request.

    Ids are UUIDv7 and equal, unless the caller named the event (Cloudflare docs: changelog 2026-10-08).
    """
    random = digest("log", count)
    log_id = str(uuid.UUID(f"{CREATED * 1000 + count:012x}7{random[:3]}8{random[3:18]}"))
    event_id = headers.get("cf-aig-event-id", log_id)
    ids = ("cf-aig-log-id", log_id), ("cf-aig-request-id", log_id), ("cf-aig-event-id", event_id)
    return *ids, ("cf-aig-trace-id", digest("gateway trace", count)[:32]), ("cf-aig-step", "0")
