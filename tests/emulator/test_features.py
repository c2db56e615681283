"""The gateway's limits, its cache, and the cost of a response."""

from typing import Any

import pytest
from emulated import BOTH, COMPAT, HOST, KEY, PROVIDER, RESPONSES, TOKEN, ask, named, send

from deepseek_gateway.emulator import Emulator


def test_rate_limit_counts_requests_within_its_window(clock: list[float]) -> None:
    with Emulator(rate_limit=(2, 60)) as emulator:
        refused = [send(emulator, PROVIDER, KEY, ask()).status for _ in range(3)]
        first = [send(emulator, PROVIDER, BOTH, ask()).status for _ in range(2)]
        limited = send(emulator, PROVIDER, BOTH, ask())
        clock[0] += 59
        late = send(emulator, PROVIDER, BOTH, ask()).status
        clock[0] += 1
        assert [*refused, *first, late] == [401, 401, 401, 200, 200, 429]
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
        assert (limited.status, limited.json["internalCode"], limited.json["message"]) == (429, 2003, "Rate limited")
        assert "retry-after" not in limited.headers


def test_spend_limit_counts_usd_within_its_window_for_models_with_a_price(clock: list[float]) -> None:
    dear = BOTH | {"cf-aig-custom-cost": '{"total_cost":0.6}', "cf-aig-cache-key": "k"}
    with Emulator(spend_limit=(1, 60)) as emulator:
        assert send(emulator, PROVIDER, dear, ask()).status == 200
        assert [send(emulator, PROVIDER, dear | {"cf-aig-cache-key": x}, ask()).status for x in "ab"] == [200, 429]
        spent = send(emulator, PROVIDER, BOTH, ask())
        assert send(emulator, PROVIDER, dear, ask()).headers["cf-aig-cache-status"] == "HIT"
        assert send(emulator, PROVIDER, BOTH, ask("deepseek-v4-pro")).status == 200
        clock[0] += 60
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    rule = "rule 'emulator' (cost limit 1 per 60s, sliding)"
    assert spent.json["internalCode"] == 2045
    assert spent.json["message"] == f"Spend limit exceeded: {rule} for deepseek deepseek-flash"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "custom", "price"),
    [
        (PROVIDER, None, (0.15e-6, 0.003e-6, 0.6e-6)),
        (RESPONSES, None, (0.15e-6, 0.003e-6, 0.6e-6)),
        (PROVIDER, '{"per_token_in":1,"per_token_out":2}', (1, 1, 2)),
        (PROVIDER, '{"per_token_in":1,"per_token_out":2,"per_cache_read_token":0.5}', (1, 0.5, 2)),
        (PROVIDER, '{"per_token_in":"1"}', (0.15e-6, 0.003e-6, 0.6e-6)),
        (PROVIDER, "free", (0.15e-6, 0.003e-6, 0.6e-6)),
    ],
)
def test_cost_is_the_price_of_the_tokens(
    emulator: Emulator, path: str, custom: str | None, price: tuple[float, float, float], stream: bool
) -> None:
    history = [{"role": "system", "content": "word " * 200}, {"role": "user", "content": "Hi"}]
    body = {"model": "deepseek-flash", "messages": history, "input": history, "stream": stream}
    assert send(emulator, path, BOTH | ({"cf-aig-custom-cost": custom} if custom else {}), body).status == 200
    usage = send(emulator, PROVIDER, BOTH, body | {"stream": False}).json["usage"]
    asked, cached = usage["prompt_cache_miss_tokens"], usage["prompt_cache_hit_tokens"]
    extra = 4 if path == RESPONSES else 0  # the empty instructions
    expected = (asked + extra) * price[0] + cached * price[1] + usage["completion_tokens"] * price[2]
    assert emulator.requests[-2].cost == pytest.approx(expected)


def test_response_without_tokens_or_price_has_no_cost(emulator: Emulator) -> None:
    emulator.fail_next(2003)
    emulator.fail_next(status=503)
    for body in (ask(), ask(), ask("deepseek-v4-pro")):
        send(emulator, PROVIDER, BOTH, body)
    send(emulator, f"{HOST}/deepseek/models")
    assert [request.cost for request in emulator.requests[-4:]] == [None] * 4
    send(emulator, PROVIDER, BOTH | {"cf-aig-custom-cost": '{"per_token_out":1}'}, ask("deepseek-v4-pro"))
    assert emulator.requests[-1].cost == 32
    assert emulator.requests[-1].custom_cost == {"per_token_out": 1}


def test_malformed_token_counts_cost_nothing(emulator: Emulator) -> None:
    emulator.fail_next(body={"usage": {"prompt_tokens": "many", "prompt_tokens_details": {"cached_tokens": None}}})
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert emulator.requests[-1].cost == 0


@pytest.mark.parametrize(
    ("options", "first", "second", "statuses"),
    [
        ({}, (BOTH, ask()), (BOTH, ask()), (None, None)),
        ({}, (BOTH, ask(stream=True)), (BOTH, ask(stream=True)), ("MISS", "MISS")),
        ({}, (named(skip_cache="true"), ask()), (BOTH | {"cf-skip-cache": "true"}, ask()), ("MISS", "MISS")),
        ({}, (named(cache_ttl="600"), ask()), (named(cache_ttl="600"), ask()), (None, None)),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="k"), ask(text="else")), ("MISS", "HIT")),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="l"), ask()), ("MISS", "MISS")),
        ({}, (named(cache_key="k"), ask()), (BOTH, ask()), ("MISS", None)),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="k"), ask(stream=True)), ("MISS", "HIT")),
        ({}, (named(cache_key="k"), ask(stream=True)), (named(cache_key="k"), ask()), ("MISS", "MISS")),
        ({}, (named(cache_key="k"), ask(max_tokens=0)), (named(cache_key="k"), ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask()), ("MISS", "HIT")),
        ({"cache_ttl": 0}, (BOTH, ask()), (BOTH, ask()), ("MISS", "HIT")),
        ({"cache_ttl": 0}, (BOTH, ask()), (named(skip_cache="true"), ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (named(metadata='{"a":1}', event_id="e"), ask()), ("MISS", "HIT")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask(text="else")), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask("deepseek-v4-pro")), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask(stream=True)), (BOTH, ask(stream=True)), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (named(skip_cache="true"), ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH | {"cf-skip-cache": "true"}, ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (named(skip_cache="true"), ask()), (BOTH, ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (TOKEN, ask()), ("MISS", "HIT")),
        (
            {"cache_ttl": 60, "stored_keys": {"default": "other"}},
            (BOTH, ask()),
            (TOKEN, ask()),
            ("MISS", "MISS"),
        ),
        ({"cache_ttl": 60, "guardrails": ()}, (BOTH, ask(stream=True)), (BOTH, ask(stream=True)), ("MISS", "MISS")),
    ],
)
def test_cache_status_follows_opt_in_and_cache_key(
    options: Any, first: Any, second: Any, statuses: tuple[str | None, str | None]
) -> None:
    with Emulator(**options) as emulator:
        one, two = (send(emulator, PROVIDER, headers, body) for headers, body in (first, second))
        costs = [request.cost for request in emulator.requests]
        calls = [len(request.attempts) for request in emulator.requests]
    assert (one.headers.get("cf-aig-cache-status"), two.headers.get("cf-aig-cache-status")) == statuses
    assert calls == [1, 0 if statuses[1] == "HIT" else 1]
    if statuses[1] == "HIT":
        assert two.body == one.body
        assert costs[1] == 0
        assert two.headers["cf-aig-log-id"] != one.headers["cf-aig-log-id"]
        assert two.headers["cf-aig-event-id"] in {"e", two.headers["cf-aig-log-id"]}


def test_skipped_request_leaves_the_cached_response() -> None:
    with Emulator(cache_ttl=60) as emulator:
        answers = [send(emulator, PROVIDER, headers, ask()) for headers in (BOTH, named(skip_cache="true"), BOTH)]
    assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS", "MISS", "HIT"]


def test_cache_entries_are_not_shared_between_urls() -> None:
    calls = [(PROVIDER, "deepseek-flash"), (f"{HOST}/deepseek/v1/chat/completions", "deepseek-flash")]
    calls += [(COMPAT, "deepseek/deepseek-flash")]
    with Emulator(cache_ttl=60) as emulator:
        answers = [send(emulator, path, BOTH, ask(model)) for path, model in calls * 2]
    assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS"] * 3 + ["HIT"] * 3


def test_get_and_oversized_post_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(cache_ttl=60) as emulator:
        assert "cf-aig-cache-status" not in send(emulator, f"{HOST}/deepseek/models").headers
        monkeypatch.setattr("deepseek_gateway.emulator._features._MAX_BYTES", 50)
        assert "cf-aig-cache-status" not in send(emulator, PROVIDER, BOTH, ask()).headers


@pytest.mark.parametrize(
    ("setting", "headers", "seconds"),
    [
        (90, BOTH, 90),
        (90, named(cache_key="k"), 90),
        (90, named(cache_ttl="120"), 120),
        (90, BOTH | {"cf-cache-ttl": "120"}, 120),
        (90, named(cache_ttl="0"), 90),
        (0, BOTH, 300),
        (0, named(cache_ttl="0"), 300),
        (0, named(cache_ttl="120"), 120),
        (None, named(cache_key="k", cache_ttl="0"), 300),
        (90, named(cache_ttl="1"), 60),
        (90, named(cache_ttl="9" * 5000), 90),
        (90, named(cache_ttl="9999999"), 30 * 86400),
        (90, named(cache_ttl="soon"), 90),
        (None, named(cache_key="k"), 300),
        (None, named(cache_key="k", cache_ttl="61"), 61),
    ],
)
def test_cached_response_expires_after_the_ttl_of_header_or_setting(
    clock: list[float], setting: float | None, headers: dict[str, str], seconds: int
) -> None:
    with Emulator(cache_ttl=setting) as emulator:
        answers = [send(emulator, PROVIDER, headers, ask())]
        for passed in (seconds - 1, 1):
            clock[0] += passed
            answers.append(send(emulator, PROVIDER, headers, ask()))
    assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS", "HIT", "MISS"]
