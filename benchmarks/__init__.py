"""The cost of `deepseek_gateway` beside the bare `openai` client, measured on loopback: `python -m benchmarks`."""
