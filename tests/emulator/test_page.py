"""The responses of the page, over real sockets and without a browser."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import Any

import pytest
from emulated import AI, BOTH, COMPAT, HOST, PROVIDER, REST, TOKEN, Events, client_of, events, hi, parts_of, send

from deepseek_gateway.emulator import Emulator, Row

HTML = {"accept": "text/html,application/xhtml+xml"}


def everything(emulator: Emulator, number: int = 1) -> str:
    """Return everything that the page could show of an exchange."""
    with events(emulator) as stream:
        return json.dumps([stream.ended(number), parts_of(emulator, number)])


class TestServing:
    def test_browser_gets_the_page_and_other_clients_the_gateway(self) -> None:
        with Emulator() as emulator:
            emulator.fail_next(2003)
            page = send(emulator, "/", HTML)
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert send(emulator, "/_exchanges/1", HTML).status == 404
            assert (emulator.requests, emulator.pending) == ([], 1)
            assert send(emulator, "/", BOTH).status == 429
            assert json.loads(send(emulator, "/", BOTH).body)["internalCode"] == 2008
            assert send(emulator, "/", HTML, b"{}").status == 401
            assert len(emulator.requests) == 3

    def test_security_policy_lets_the_page_load_and_run_only_itself(self) -> None:
        with Emulator() as emulator:
            page, again = (send(emulator, "/", HTML) for _ in range(2))
        policy = page.headers["content-security-policy"]
        nonce = re.search(r"script-src 'nonce-([\w-]{22})'", policy)
        assert nonce is not None
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules == {
            "default-src": "'none'",
            "script-src": f"'nonce-{nonce[1]}'",
            "style-src": f"'nonce-{nonce[1]}'",
            "connect-src": "'self'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        assert page.text.count(f'nonce="{nonce[1]}"') == page.text.count("<style") + page.text.count("<script") == 2
        assert nonce[1] not in again.text
        assert "innerHTML" not in page.text
        assert set(re.findall(r"https?://[^/'\"]+", page.text)) == {"http://www.w3.org"}  # the namespace of SVG

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("127.0.0.1", 200),
            ("127.0.0.1:8787", 200),
            ("127.9.9.9:1", 200),
            ("localhost:8787", 200),
            ("LOCALHOST", 200),
            ("page.localhost:1", 200),
            ("[::1]:8787", 200),
            ("evil.example", 403),
            ("evil.example:8787", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1@evil.example", 403),
            ("10.0.0.1", 403),
            ("[::2]", 403),
            ("[", 403),
            ("", 403),
        ],
    )
    def test_page_is_refused_under_a_host_that_is_not_loopback(self, host: str, status: int) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi())
            page = send(emulator, "/", HTML | {"host": host})
            assert page.status == send(emulator, "/_exchanges/1", {"host": host}).status == status
            if status == 403:
                assert send(emulator, "/_exchanges", {"host": host}).status == 403
                assert "loopback name only" in page.text
                assert page.headers["x-content-type-options"] == "nosniff"
            assert send(emulator, PROVIDER, BOTH | {"host": host}, hi()).status == 200  # a custom domain

    @pytest.mark.parametrize("number", ["2", "0", "-1", "x", "1/2", "%D9%A1", "9" * 5000])
    def test_exchange_that_is_not_kept_is_answered_with_404(self, number: str) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi())
            assert send(emulator, f"/_exchanges/{number}").status == 404

    def test_settings_are_shown_without_the_secrets_of_the_user(self) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            endpoint = f"{emulator.url}/v1/{'e' * 32}/emulator-gateway"
            assert emulator.environ == {
                "DEEPSEEK_GATEWAY_ENDPOINT": endpoint,
                "CF_AIG_TOKEN": "emulator-gateway-token",
                "DEEPSEEK_API_KEY": "emulator-deepseek-key",
                "DEEPSEEK_DIRECT_ENDPOINT": emulator.direct_url,
            }
            assert stream.about["settings"] == emulator.environ
        with Emulator(api_key="my-own-key", authenticated=False) as emulator, events(emulator) as stream:
            assert set(emulator.environ) == {
                "DEEPSEEK_GATEWAY_ENDPOINT",
                "DEEPSEEK_API_KEY",
                "DEEPSEEK_DIRECT_ENDPOINT",
            }
            assert stream.about["settings"]["DEEPSEEK_API_KEY"] == "..."
            assert "my-own-key" not in str(stream.about)


class TestRows:
    @pytest.mark.parametrize(
        ("path", "headers", "body", "expected"),
        [
            (
                PROVIDER,
                BOTH,
                hi(),
                {"method": "POST", "path": PROVIDER, "route": "provider", "endpoint": "/chat/completions"}
                | {"asked": "deepseek-flash", "sent": "deepseek-flash", "status": 200, "cache": ""}
                | {"tokens": [5, 29, 0], "streamed": False, "complete": True},
            ),
            (
                f"{HOST}/compat/chat/completions",
                TOKEN,
                hi() | {"model": "deepseek/deepseek-flash"},
                {"route": "compat", "asked": "deepseek/deepseek-flash", "sent": "deepseek-flash"},
            ),
            (
                "/compat/chat/completions",
                TOKEN,
                hi() | {"model": "dynamic/support"},
                {"route": "compat", "asked": "dynamic/support", "sent": "deepseek-v4-pro"},
            ),
            (
                f"{AI}/chat/completions",
                REST,
                hi() | {"model": "deepseek/deepseek-flash"},
                {"route": "rest", "endpoint": "/v1/chat/completions", "sent": "deepseek-flash"},
            ),
            (
                f"{HOST}/deepseek/models",
                BOTH,
                None,
                {"method": "GET", "endpoint": "/models", "asked": "", "sent": "", "tokens": None, "status": 200},
            ),
            (
                PROVIDER,
                BOTH,
                hi(stream=True) | {"messages": hi("so " * 200)["messages"] * 2},
                {"streamed": True, "complete": True, "tokens": [410, 129, 128]},
            ),
            (
                f"{HOST}/deepseek/responses",
                BOTH,
                {"model": "deepseek-flash", "input": "Hi", "stream": True},
                {"endpoint": "/responses", "streamed": True, "tokens": [9, 29, 0]},
            ),
            (PROVIDER, TOKEN | {"cf-aig-cache-key": "k"}, hi(), {"cache": "MISS"}),
            (PROVIDER, {}, hi(), {"status": 401, "sent": None, "tokens": None, "complete": True}),
            (f"{HOST}/openai/x", BOTH, hi(), {"status": 400, "route": "", "endpoint": f"{HOST}/openai/x"}),
            (PROVIDER, BOTH, b"\xff", {"status": 400, "asked": "", "sent": ""}),
            (PROVIDER, BOTH, b'{"model": ["\\ud800"]}', {"status": 400, "asked": "['\\ud800']"}),
        ],
        ids=[
            "provider",
            "compat",
            "dynamic",
            "rest",
            "models",
            "stream",
            "responses",
            "cached",
            "refused",
            "elsewhere",
            "bytes",
            "odd",
        ],
    )
    def test_row_describes_the_exchange(
        self, path: str, headers: dict[str, str], body: Any, expected: dict[str, Any]
    ) -> None:
        ended: list[Row] = []
        with Emulator(on_exchange=ended.append) as emulator, events(emulator) as stream:
            answer = send(emulator, path, headers, body)
            row = stream.ended(1)
        assert {name: row[name] for name in expected} == expected
        assert answer.status == row["status"]
        assert abs(row["began"] - time.time()) < 10
        assert 0 < row["seconds"] < 10
        assert [(each.number, each.status, each.seconds) for each in ended] == [(1, row["status"], row["seconds"])]

    def test_row_of_a_cache_hit_names_no_model_sent_to_deepseek(self) -> None:
        with Emulator(cache_ttl=60) as emulator, events(emulator) as stream:
            for _ in range(2):
                send(emulator, PROVIDER, BOTH, hi())
            rows = [stream.ended(number) for number in (1, 2)]
        assert [(row["cache"], row["sent"]) for row in rows] == [("MISS", "deepseek-flash"), ("HIT", None)]
        assert rows[0]["tokens"] == rows[1]["tokens"]

    @pytest.mark.parametrize(
        ("fault", "status"), [({"cut_after": 300}, 200), ({"reset": True}, None)], ids=["cut", "reset"]
    )
    def test_row_of_a_broken_response_is_not_complete(self, fault: Any, status: int | None) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            emulator.fail_next(**fault)
            with pytest.raises((http.client.HTTPException, OSError)):
                send(emulator, PROVIDER, BOTH, hi())
            row = stream.ended(1)
            parts = parts_of(emulator)
        assert (row["status"], row["complete"], row["tokens"]) == (status, False, None)
        assert parts[-1]["line"] == f"{status or 'No status'} (cut off)"
        assert len(parts[-1]["body"]) == (300 if status else 0)

    def test_row_of_a_stream_appears_before_the_stream_ends(self) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            emulator.fail_next(stall_after=500)
            address = emulator.url.removeprefix("http://")
            connection = http.client.HTTPConnection(address, timeout=10)
            connection.request("POST", PROVIDER, json.dumps(hi(stream=True)), BOTH)
            row = stream.next()
            while row["status"] is None:
                row = stream.next()
            assert (row["status"], row["streamed"], row["seconds"]) == (200, True, None)
            assert "(not ended yet)" in json.loads(send(emulator, "/_exchanges/1").body)[-1]["line"]
            connection.sock.close()
            connection.close()
            assert stream.ended(1)["complete"] is False

    @pytest.mark.parametrize(
        ("path", "body", "prompt"),
        [
            (PROVIDER, hi("one\n\n  two " + "x" * 500), "one two " + "x" * 152),
            (PROVIDER, hi() | {"messages": [*hi("first")["messages"], *hi("last")["messages"]]}, "last"),
            (PROVIDER, hi() | {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}, "part"),
            (f"{HOST}/deepseek/responses", {"model": "deepseek-flash", "input": "asked"}, "asked"),
            (f"{HOST}/deepseek/beta/completions", {"model": "deepseek-flash", "prompt": "def f("}, "def f("),
            (PROVIDER, {"messages": [None]}, ""),
            (PROVIDER, {"messages": {"a": 1}}, ""),
            (PROVIDER, b"[]", ""),
        ],
    )
    def test_row_has_the_beginning_of_the_last_message(self, path: str, body: Any, prompt: str) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            send(emulator, path, BOTH, body)
            assert stream.ended(1)["prompt"] == prompt

    @pytest.mark.parametrize(
        ("path", "fault", "body", "code"),
        [
            (PROVIDER, {"code": 2003}, hi(), "2003"),
            (PROVIDER, {"code": 2009, "shape": "short"}, hi(), "2009"),
            (f"{AI}/chat/completions", {"code": 10000}, hi(), "10000"),
            (PROVIDER, {"status": 503}, hi(), "service_unavailable_error"),
            (PROVIDER, {"code": 2005, "event": 3}, hi(stream=True), "2005"),
            (PROVIDER, {"shape": "policy"}, hi(), ""),
            (PROVIDER, {"status": 502}, hi(), ""),
            (PROVIDER, {"body": '{"error": {"type": "odd"}}', "status": 400}, hi(), "odd"),
            (PROVIDER, {"body": '{"error": "odd", "errors": 1}', "status": 400}, hi(), ""),
        ],
    )
    def test_row_has_the_code_of_the_error(self, path: str, fault: Any, body: Any, code: str) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            emulator.fail_next(**fault)
            send(emulator, path, REST if path.startswith("/client") else BOTH, body)
            assert stream.ended(1)["code"] == code

    def test_tries_of_one_call_are_linked_to_the_first_try(self) -> None:
        with Emulator() as emulator, events(emulator) as stream, client_of(emulator) as client:
            emulator.fail_next(status=503, times=2)
            again = client.with_options(max_retries=2)
            again.chat.completions.create(model="deepseek-flash", messages=[{"role": "user", "content": "Hi"}])
            row = stream.ended(3)
            assert (row["status"], row["first"], row["retry"], row["retried"]) == (200, 1, 2, False)

    def test_two_equal_calls_keep_their_own_tries(self) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            for count in "0011":
                send(emulator, PROVIDER, BOTH | {"x-stainless-retry-count": count}, hi())
            assert [stream.ended(number)["first"] for number in (3, 4)] == [2, 1]

    @pytest.mark.parametrize(
        ("path", "body", "count", "first"),
        [
            (PROVIDER, hi(), "1", 1),
            (PROVIDER, hi(), "0", 2),
            (PROVIDER, hi(), "2", 2),
            (PROVIDER, hi(), "x", 2),
            (PROVIDER, hi("Else"), "1", 2),
            (COMPAT, hi(), "1", 2),
        ],
    )
    def test_retry_is_recognised_by_its_count_path_and_body(self, path: str, body: Any, count: str, first: int) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            send(emulator, PROVIDER, BOTH, hi())
            assert not stream.ended(1)["retried"]
            send(emulator, path, BOTH | {"x-stainless-retry-count": count}, body)
            assert stream.ended(2)["first"] == first


class TestReconnecting:
    def test_reconnecting_with_the_last_event_id_loses_and_repeats_nothing(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi())
            with events(emulator) as stream:
                assert not stream.about["empty"]
                stream.ended(1)
                last = stream.last
            for _ in range(3):
                send(emulator, PROVIDER, BOTH, hi())
            with events(emulator, last) as again:
                numbers = []
                while 4 not in numbers:
                    if (row := again.next())["seconds"] is not None:
                        numbers.append(row["number"])
            assert numbers == [2, 3, 4]
            assert again.about["run"] == stream.about["run"]

    @pytest.mark.parametrize("last", ["", "other.999", "999", "{run}.", "{run}.x", "{run}." + "9" * 16])
    def test_unknown_last_event_id_gets_every_row(self, last: str) -> None:
        with Emulator() as emulator:
            with events(emulator) as stream:
                run = stream.about["run"]
                assert stream.about["empty"]
            send(emulator, PROVIDER, BOTH, hi())
            with events(emulator, last.format(run=run)) as stream:
                assert stream.ended(1)["status"] == 200

    def test_run_id_stays_in_a_second_block_and_differs_in_another_emulator(self) -> None:
        runs = []
        emulator = Emulator()
        for each in (emulator, emulator, Emulator()):
            with each, events(each) as stream:
                runs.append(stream.about["run"])
        assert runs[0] == runs[1] != runs[2]

    def test_open_page_does_not_delay_the_stop(self) -> None:
        with Emulator() as emulator:
            streams = [Events(emulator) for _ in range(3)]
            began = time.monotonic()
        assert time.monotonic() - began < 1
        for stream in streams:
            stream.close()

    def test_watcher_is_removed_when_the_page_is_closed(self) -> None:
        with Emulator() as emulator:
            watchers = emulator._record.watchers  # noqa: SLF001  # no public name shows the watchers
            with events(emulator):
                assert len(watchers) == 1
            deadline = time.monotonic() + 5
            while watchers and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not watchers


class TestDetails:
    def test_parts_are_both_requests_and_the_response_with_headers_and_bodies(self) -> None:
        with Emulator() as emulator:
            body = {"model": "deepseek/deepseek-flash", "messages": [{"role": "user", "content": "云 \u2028"}]}
            more = TOKEN | {"cf-aig-metadata": "{}"}
            answer = send(emulator, "/compat/chat/completions?a=b", more, body)
            caller, upstream, answered = parts_of(emulator)
        assert [caller["title"], upstream["title"], answered["title"]] == [
            "Caller to gateway",
            "Gateway to DeepSeek",
            "Answer",
        ]
        assert caller["line"] == "POST /compat/chat/completions?a=b"
        assert upstream["line"] == "POST /chat/completions?a=b"
        assert answered["line"] == "200"
        assert ["cf-aig-metadata", "{}"] in caller["headers"]
        assert ["host", "api.deepseek.com"] in upstream["headers"]
        assert "cf-aig-metadata" not in dict(upstream["headers"])
        assert dict(answered["headers"])["cf-ray"] == answer.headers["cf-ray"]
        assert caller["body"] == json.dumps(body, indent=2, ensure_ascii=False)
        assert json.loads(upstream["body"])["model"] == "deepseek-flash"
        assert json.loads(answered["body"]) == json.loads(answer.body)
        assert [part["note"] for part in (caller, upstream, answered)] == ["", "", ""]

    def test_parts_count_attempts_and_say_when_deepseek_was_not_asked(self) -> None:
        with Emulator() as emulator:
            emulator.fail_next(status=503, times=2)
            send(emulator, PROVIDER, BOTH | {"cf-aig-max-attempts": "3", "cf-aig-retry-delay": "1"}, hi())
            send(emulator, PROVIDER, {}, hi())
            assert parts_of(emulator, 1)[1]["title"] == "Gateway to DeepSeek (3 tries)"
            assert parts_of(emulator, 2)[1]["line"] == "Not sent: the gateway answered by itself."

    def test_long_bodies_are_cut_and_malformed_ones_shown_as_they_are(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi("x" * 70_000))
            send(emulator, PROVIDER, BOTH, b"\xffnot json \x1b[2J")
            send(emulator, PROVIDER, BOTH, b"[" * 5000)
            caller, *_ = parts_of(emulator, 1)
            assert len(caller["body"]) == 65_536
            assert re.fullmatch(r"The first 65,536 of 70,\d{3} characters\.", caller["note"])
            assert parts_of(emulator, 2)[0]["body"] == "\ufffdnot json \x1b[2J"
            assert parts_of(emulator, 3)[0]["body"] == "[" * 5000


class TestSecrets:
    @pytest.mark.parametrize(
        ("path", "headers", "secret"),
        [
            (PROVIDER, BOTH, "emulator-deepseek-key"),
            (PROVIDER, BOTH, "emulator-gateway-token"),
            (PROVIDER, TOKEN, "emulator-deepseek-key"),
            (PROVIDER, {"authorization": "Bearer a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "bearer   a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "Bearer two words-of-it"}, "words-of-it"),
            (PROVIDER, TOKEN | {"authorization": "Bearer a-real-key-by-mistake"}, "stake"),
            (PROVIDER, TOKEN | {"authorization": 'Bearer a"quoted\\key'}, "quoted"),
            (PROVIDER, TOKEN | {"authorization": "Bearer short"}, "short"),
            (PROVIDER, TOKEN | {"x-api-key": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"cookie": "session=abc"}, "abc"),
            (PROVIDER, TOKEN | {"cf-access-client-secret": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"x-whatever": "Bearer a-real-key-by-mistake"}, "a-real-key-by-mistake"),
        ],
    )
    def test_credentials_in_headers_are_masked(self, path: str, headers: dict[str, str], secret: str) -> None:
        with Emulator() as emulator:
            send(emulator, path, headers, hi())
            assert secret not in everything(emulator)

    @pytest.mark.parametrize(
        "secret", ["emulator-deepseek-key", "emulator-gateway-token", 'brought/a+long"one', "alias-key"]
    )
    def test_secrets_are_masked_in_urls_headers_and_bodies(self, secret: str) -> None:
        spelled = secret.replace("/", "%2F").replace("+", "%2B").replace('"', "%22")
        with Emulator(stored_keys={"other": "alias-key"}) as emulator:
            headers = BOTH | {"x-mine": 'Bearer brought/a+long"one', "cf-aig-metadata": json.dumps({"a": secret})}
            body = hi(f"my key is {secret}\n{secret}") | {"model": secret, secret: 1}
            send(emulator, f"{PROVIDER}/{spelled}?key={spelled}", headers, body)
            shown = everything(emulator)
        for spelling in (secret, spelled, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]):
            assert spelling not in shown
        assert f"[{len(secret)} characters]" in shown

    def test_masked_credential_keeps_its_scheme_and_length(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, TOKEN | {"authorization": "Basic abc"}, hi())
            headers = dict(parts_of(emulator)[0]["headers"])
        assert headers["authorization"] == "Basic [3 characters]"
        assert headers["cf-aig-authorization"] == "Bearer [22 characters]"

    def test_short_credentials_do_not_mask_ordinary_text(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, TOKEN | {"authorization": "Bearer a", "cf-aig-cache-key": "k"}, hi("a cat"))
            caller = parts_of(emulator)[0]
        assert '"content": "a cat"' in caller["body"]
        assert dict(caller["headers"])["cf-aig-cache-key"] == "k"
