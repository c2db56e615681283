"""The public names. If you add or remove a name, change this list and the changelog."""

from __future__ import annotations

import inspect
import pydoc

import pytest

import deepseek_gateway
from deepseek_gateway import emulator, testing

PUBLIC = {
    deepseek_gateway: [
        "ConfigError",
        "GatewayCall",
        "GatewayConfig",
        "Route",
        "Usage",
        "create_async_client",
        "create_async_http_client",
        "create_client",
        "create_http_client",
        "gateway_headers",
        "long_history",
        "record_calls",
    ],
    emulator: ["Emulator", "ReceivedRequest", "Row"],
    testing: ["leaks", "vcr_config"],
}


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names_match_the_list(module: object) -> None:
    assert sorted(module.__all__) == PUBLIC[module]  # type: ignore[attr-defined,index]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(module, name, id=f"{module.__name__}.{name}")
        for module, names in PUBLIC.items()
        for name in names
        if name != "Route"
    ],
)
def test_public_name_and_its_methods_have_docstrings(module: object, name: str) -> None:
    thing = getattr(module, name)
    assert len(inspect.getdoc(thing) or "") > 40
    if inspect.isclass(thing):
        methods = [member for key, member in vars(thing).items() if not key.startswith("_") and callable(member)]
        assert all(inspect.getdoc(method) for method in methods)


def test_package_help_names_every_public_name_and_shows_an_example() -> None:
    taught = pydoc.plain(pydoc.render_doc(deepseek_gateway))
    for name in PUBLIC[deepseek_gateway]:
        assert name in taught
    assert "client = create_client()" in taught


def test_misspelled_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'create_cleint'"):
        deepseek_gateway.create_cleint  # type: ignore[attr-defined]  # noqa: B018
