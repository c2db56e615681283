from __future__ import annotations

from typing import Any

from mem0 import AsyncMemory, Memory
from mem0.embeddings.mock import MockEmbeddings

from integrations import MESSAGES

__all__ = ["Memory"]

# DeepSeek has no embeddings, so a program configures another embedder. This one is replaced below.
others = {
    "embedder": {"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9"}},
    "vector_store": {"provider": "qdrant", "config": {"path": "vectors", "embedding_model_dims": 10}},
    "history_db_path": "history.db",
}
OPTIONS = {"agent_id": "asker", "memory_type": "procedural_memory"}


def ask(memory: Any) -> Any:
    memory.embedding_model = MockEmbeddings()
    return memory.add(MESSAGES, **OPTIONS)["results"][0]["memory"]


async def ask_async(memory: Any) -> Any:
    config, client = memory.config, memory.llm.client
    memory.close()
    memory.vector_store.client.close()  # it locks the folder of the vectors
    memory = AsyncMemory(config)
    memory.llm.client = client
    memory.embedding_model = MockEmbeddings()
    return (await memory.add(MESSAGES, **OPTIONS))["results"][0]["memory"]
