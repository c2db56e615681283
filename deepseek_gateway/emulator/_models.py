"""The models that DeepSeek serves."""

from deepseek_gateway.emulator._json import Json

MODELS = ("deepseek-flash", "deepseek-v4-pro")
# In September 2026, deepseek-flash still served the retired names, and named itself in the answer (observed).
RETIRED = ("deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp")
MAX_TOKENS = 393216


def model_list(prefix: str = "") -> Json:
    """Return the list as documented since October 2026; models have no `created` (DeepSeek docs: api/list-models)."""
    return {"object": "list", "data": [_model(name) | {"id": prefix + name} for name in MODELS]}


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "owned_by": "deepseek",
        "name": {"deepseek-flash": "DeepSeek-V4.1-Flash", "deepseek-v4-pro": "DeepSeek-V4-Pro"}[name],
        "context_window": 1048576,
        "max_output_tokens": MAX_TOKENS,
        "input_modalities": ["text", "image"] if name == "deepseek-flash" else ["text"],
        "output_modalities": ["text"],
        "effort": {"supported_levels": ["none", "low", "high", "max"], "default_level": "high"},
        "api_capabilities": ["chat_completions", "responses", "fim_completions"],
    }
