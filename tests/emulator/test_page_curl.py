"""The page's curl commands: they repeat a request, and hold no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest
from emulated import AI, BOTH, HOST, PROVIDER, REST, hi, parts_of, send

from deepseek_gateway.emulator import Emulator


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (PROVIDER, BOTH, hi("It's \"quoted\" $HOME `id` \\ 云\n")),
        (f"{PROVIDER}?a=b%20c&d", BOTH | {"content-type": "text/json", "cf-aig-metadata": '{"a": "it\'s"}'}, hi()),
        (f"{AI}/chat/completions", REST, hi() | {"model": "deepseek/deepseek-flash"}),
        (f"{HOST}/deepseek/models", BOTH, None),
        ("/a%20b'c", {}, hi()),
    ],
    ids=["provider", "query", "rest", "models", "odd path"],
)  # fmt: skip
def test_curl_command_repeats_the_request_with_the_variables(path: str, headers: dict[str, str], body: Any) -> None:
    with Emulator() as emulator:
        answer = send(emulator, path, headers, body)
        command = parts_of(emulator)[0]["curl"]
        done = subprocess.run(
            ["sh", "-c", f"{command} --silent --output /dev/null --write-out '%{{http_code}}'"],
            capture_output=True, text=True, check=True, env=os.environ | emulator.environ,
        )  # fmt: skip
        assert int(done.stdout) == answer.status
        first, again = emulator.requests
    assert (first.method, first.path, first.query, first.body) == (
        again.method,
        again.path,
        again.query,
        again.body,
    )
    assert {name: again.headers.get(name) for name in headers} == headers
    assert not any(secret in command for secret in ("emulator-deepseek-key", "emulator-gateway-token"))


def test_curl_command_names_a_variable_for_each_credential() -> None:
    with Emulator() as emulator:
        headers = {"authorization": "Bearer a-real-key-by-mistake", "cf-access-client-secret": "another-secret"}
        send(emulator, PROVIDER, headers | {"user-agent": "mine"}, hi())
        *_, key, secret, _ = parts_of(emulator)[0]["curl"].split(" \\\n  ")
    assert key == '-H "authorization: Bearer $DEEPSEEK_API_KEY"'
    assert secret == '-H "cf-access-client-secret: $CF_ACCESS_CLIENT_SECRET"'


@pytest.mark.parametrize("body", [b"\xff", hi("x" * 70_000)], ids=["bytes", "long"])
def test_body_that_fits_no_command_has_no_curl_command(body: Any) -> None:
    with Emulator() as emulator:
        send(emulator, PROVIDER, BOTH, body)
        assert parts_of(emulator)[0]["curl"] == ""
