"""Stock OpenAI clients for DeepSeek through Cloudflare AI Gateway.

    from deepseek_gateway import create_client

    client = create_client()  # settings from the environment and .env

Importing this package reads no setting and does not import openai.
"""

from typing import TYPE_CHECKING

from ._calls import GatewayCall, Usage, record_calls
from ._client import create_async_client, create_async_http_client, create_client, create_http_client
from ._config import GatewayConfig
from ._headers import gateway_headers
from ._history import long_history
from ._settings import Route

if TYPE_CHECKING:
    from ._errors import ConfigError

    __version__: str

__all__ = [
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
]


def __getattr__(name: str) -> object:
    """Import what is rarely used when it is used. `ConfigError` needs openai, which takes 400 ms to import."""
    if name == "ConfigError":
        from ._errors import ConfigError  # noqa: PLC0415

        return ConfigError
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("deepseek-gateway")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what is public."""
    return __all__
