"""The tools that mock httpx answer a client of this library.

These tests are not collected with the rest, because each tool works with some versions of openai only. `nox -s mocking`
runs the tests of each tool in environments of its own.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from mocked import URL, check_mocked_calls, flavours


@flavours
def test_httpx_mock_answers_calls_and_streams(flavour: str, httpx_mock: Any) -> None:
    def respond(status: int, **response: Any) -> None:
        httpx_mock.add_response(url=URL, status_code=status, **response)

    check_mocked_calls(flavour, respond)
    assert {request.headers["authorization"] for request in httpx_mock.get_requests()} == {"Bearer mocked-key"}


@flavours
@pytest.mark.parametrize("fixture", ["respx_mock", "httpx2_mock"])
def test_router_answers_calls_and_streams(flavour: str, fixture: str, request: pytest.FixtureRequest) -> None:
    router, respx = request.getfixturevalue(fixture), importlib.import_module("respx")

    def respond(status: int, **response: Any) -> None:
        router.post(URL).mock(return_value=respx.MockResponse(status, **response))

    check_mocked_calls(flavour, respond)
    assert {call.request.headers["authorization"] for call in router.calls} == {"Bearer mocked-key"}
