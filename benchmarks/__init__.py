"""What `deepseek_gateway` costs beside the bare `openai` client, measured on loopback: `python -m benchmarks`."""
