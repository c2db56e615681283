"""No secret gets into a cassette: redaction while recording, and a scan of the recorded files."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

import pytest
from cassette_cases import CASES, CASSETTES, REPLAYED

from deepseek_gateway import GatewayConfig
from deepseek_gateway.testing import leaks, vcr_config

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(path for path in CASSETTES.rglob("*") if path.is_file())


def test_every_cassette_has_a_case_and_names_its_source() -> None:
    assert {path.name for path in FILES} == {f"{case.id}.yaml" for case in CASES} | {"README.md"}
    recorded = {path.stem for path in FILES if "x-recorded-from:\n      - emulator" in path.read_text("utf-8")}
    readme = (CASSETTES / "README.md").read_text("utf-8")
    assert set(re.findall(r"(?m)^\| `([\w-]+)\.yaml` \|.*\| emulator \|$", readme)) == recorded


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_stored_cassette_contains_no_secret(path: Path) -> None:
    assert leaks(path.read_text("utf-8"), REPLAYED) == []


KEY, TOKEN, ACCOUNT, GATEWAY = "sk-" + "5ecret" * 4, "t0k" + "en" * 10, "deadbeef" * 4, "team-gateway"
LIVE = GatewayConfig(account_id=ACCOUNT, gateway_id=GATEWAY, api_key=KEY, gateway_token=TOKEN)


@pytest.mark.parametrize(
    "planted",
    [
        f"    authorization:\n    - Bearer {KEY}\n",
        "    Authorization:\n    - anything\n",
        f"    cf-aig-authorization: [Bearer {TOKEN}]\n",
        "      set-cookie:\n      - __cf_bm=abc\n",
        "      CF-RAY:\n      - 8f00ba-FRA\n",
        f"  uri: https://gateway.ai.cloudflare.com/v1/{ACCOUNT}/{GATEWAY}/deepseek/models\n",
        f"  uri: https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai/v1/chat/completions\n",
        f'    string: \'{{"echo":"{TOKEN}"}}\'\n',
        f'    string: \'{{"gateway":"{GATEWAY}"}}\'\n',
        f'    string: \'{{"message":"Your api key: ****{KEY[-4:]} is invalid"}}\'\n',
        f"    curl -H 'x-api-key: {KEY}'\n",
    ],
)
def test_leaks_finds_a_secret_and_its_line(planted: str) -> None:
    clean = (CASSETTES / "chat-provider.yaml").read_text("utf-8")
    assert leaks(clean, LIVE) == []
    (first, *_) = leaks(clean + planted, LIVE)
    lines = clean.count("\n")
    assert lines < int(first.rpartition(" ")[2]) <= lines + 2
    assert not [secret for secret in (KEY, TOKEN, ACCOUNT) if secret in first]


STRUCTURED = {
    "second value of a header": ("      - REDACTED\n      cf-aig", "      - REDACTED\n      - other\n      cf-aig"),
    "credential in x-api-key": ("      content-type:", "      x-api-key:\n      - secret\n      content-type:"),
    "gateway id in its header": (
        "      content-type:",
        "      cf-aig-gateway-id:\n      - mine\n      content-type:",
    ),
    "another host": ("https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/", "https://ai.example.com/"),
    "body in base64": (
        "    body: '{",
        f"    body: !!binary {base64.b64encode(TOKEN.encode()).decode()}\n    was: '{{",
    ),
}


@pytest.mark.parametrize("what", STRUCTURED)
def test_leaks_finds_a_secret_in_any_part_of_an_interaction(what: str) -> None:
    clean = (CASSETTES / "chat-provider.yaml").read_text("utf-8")
    planted = clean.replace(*STRUCTURED[what], 1)
    assert planted != clean
    assert any(leak.endswith(", interaction 1") for leak in leaks(planted, LIVE)), leaks(planted, LIVE)


def test_gateway_id_that_is_an_ordinary_word_is_not_replaced_in_bodies() -> None:
    options = vcr_config(GatewayConfig(account_id="a", gateway_id="deepseek", api_key=KEY))
    uri = "https://gateway.ai.cloudflare.com/v1/a/deepseek/deepseek/chat/completions"
    kept = options["before_record_request"](Recorded(uri, {}, b'{"model": "deepseek-flash", "say": "a deepseek a-b"}'))
    assert kept.uri == "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/deepseek/chat/completions"
    assert kept.body == b'{"model": "deepseek-flash", "say": "ACCOUNT deepseek a-b"}'


class Recorded:
    """A request as vcrpy hands it to a filter."""

    def __init__(self, uri: str, headers: dict[str, str], body: bytes) -> None:
        self.uri, self.headers, self.body, self.method = uri, headers, body, "POST"


@pytest.mark.parametrize(
    ("uri", "stored"),
    [
        (f"https://gateway.ai.cloudflare.com/v1/{ACCOUNT}/{GATEWAY}/deepseek/chat/completions?x=1", None),
        (f"http://127.0.0.1:8787/v1/{ACCOUNT}/{GATEWAY}/deepseek/chat/completions?x=1", None),
        ("https://ai.example.com/deepseek/chat/completions?x=1", None),
        (
            f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai/v1/chat/completions",
            "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/ai/v1/chat/completions",
        ),
        (
            f"https://gateway.ai.cloudflare.com/v1/{ACCOUNT}/{GATEWAY}/compat",
            "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/compat",
        ),
    ],
)
def test_exchange_is_stored_without_secrets_under_a_canonical_address(uri: str, stored: str | None) -> None:
    options = vcr_config(LIVE)
    said = f"你好 {KEY} {TOKEN} {ACCOUNT} {GATEWAY}"
    headers = {"Authorization": f"Bearer {KEY}", "cf-aig-authorization": f"Bearer {TOKEN}", "User-Agent": "x"}
    headers |= {"cf-aig-gateway-id": GATEWAY, "cf-aig-metadata": f'{{"k":"{KEY}"}}', "cookie": "a=b", "Accept": "*/*"}
    request = Recorded(uri, headers, said.encode())
    response = {
        "headers": {"CF-Ray": ["8f-FRA"], "Set-Cookie": ["a=b"], "content-type": ["text/plain"], "x": [ACCOUNT]},
        "body": {"string": f"{said} ****{KEY[-4:]} is invalid".encode()},
    }
    before = (dict(request.headers), request.body, json.dumps(response, default=str))

    kept = options["before_record_request"](request)
    answer = options["before_record_response"](response)

    assert kept.uri == (stored or "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/deepseek/chat/completions?x=1")
    assert kept.headers == {
        "Authorization": "REDACTED",
        "cf-aig-authorization": "REDACTED",
        "cf-aig-gateway-id": "GATEWAY",
        "cf-aig-metadata": '{"k":"REDACTED"}',
        "Accept": "*/*",
    }
    assert kept.body == "你好 REDACTED REDACTED ACCOUNT GATEWAY".encode()
    assert answer["headers"] == {"CF-Ray": ["REDACTED"], "content-type": ["text/plain"], "x": ["ACCOUNT"]}
    assert answer["body"]["string"].decode() == "你好 REDACTED REDACTED ACCOUNT GATEWAY ****REDACTED is invalid"
    assert (dict(request.headers), request.body, json.dumps(response, default=str)) == before, "the originals changed"
