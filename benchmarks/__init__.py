"""The cost of `deepseek_gateway` relative to the bare `openai` client, on loopback: `python -m benchmarks`."""
