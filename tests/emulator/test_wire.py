"""Received requests: the parts that are kept, and the metadata."""

from typing import Any

import pytest
from emulated import BOTH, PROVIDER, ask, send

from deepseek_gateway.emulator import Emulator, ReceivedRequest


def test_received_request_keeps_method_url_headers_and_body_and_hides_secrets_in_repr() -> None:
    with Emulator() as emulator:
        send(emulator, PROVIDER + "?a=%C3%A4&b", BOTH, b"\xff not json", "PUT")
        (received,) = emulator.requests
        emulator.requests.clear()
        assert emulator.requests == []
    assert isinstance(received, ReceivedRequest)
    assert (received.method, received.path, received.query) == ("PUT", PROVIDER, "a=%C3%A4&b")
    assert (received.body, received.json) == (b"\xff not json", None)
    assert received.headers["CF-AIG-Authorization"] == received.headers["cf-aig-authorization"]
    assert received.upstream is not None
    assert received.upstream.query == "a=%C3%A4&b"
    assert "emulator-deepseek-key" not in repr(received)
    assert "emulator-gateway-token" not in repr(received)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, {}),
        ('{"a":"x","b":1,"c":1.5,"d":true}', {"a": "x", "b": 1, "c": 1.5, "d": True}),
        ('{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
        ('{"cf.user_id":"x","a":1}', {"a": 1}),
        ('{"a":1,"b":null}', {}),
        ('{"a":1,"b":{"c":2}}', {}),
        ('{"a":1,"b":[2]}', {}),
        ("[1]", {}),
        ("{", {}),
        ('{"name":"\\u4e91"}', {"name": "云"}),
    ],
)
def test_metadata_is_kept_by_the_gateways_rules(emulator: Emulator, sent: str | None, kept: dict[str, Any]) -> None:
    headers = BOTH | ({} if sent is None else {"cf-aig-metadata": sent})
    assert send(emulator, PROVIDER, headers, ask()).status == 200
    assert emulator.requests[-1].metadata == kept
