"""A pretend application that summarises texts. It reads its settings from the environment."""

import asyncio

import openai

from deepseek_gateway import create_async_client, create_client

INSTRUCTION = {"role": "system", "content": "Summarise the text in one sentence."}


def summary(text: str) -> str:
    """Return a summary, or say that there is none today."""
    with create_client() as client:
        try:
            completion = client.chat.completions.create(
                model="deepseek-flash", messages=[INSTRUCTION, {"role": "user", "content": text}]
            )
        except openai.RateLimitError:
            return "No summaries today: the budget is spent."
    return completion.choices[0].message.content or ""


async def summaries(texts: list[str]) -> list[str]:
    """Summarise several texts at a time. Each summary is streamed."""
    async with create_async_client() as client:

        async def streamed(text: str) -> str:
            stream = await client.chat.completions.create(
                model="deepseek-flash", messages=[INSTRUCTION, {"role": "user", "content": text}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        return await asyncio.gather(*map(streamed, texts))
