"""Relay a stream to a browser: `uvicorn fastapi_relay:app`, then `curl -N 'localhost:8000/ask?question=Hello'`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from deepseek_gateway import create_async_client


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one client for all requests, so that they share connections."""
    async with create_async_client(transport="aiohttp") as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(question: str, request: Request) -> StreamingResponse:
    """Answer with plain text, while the model writes it."""
    messages = [{"role": "user", "content": question}]
    try:
        stream = await request.app.state.client.chat.completions.create(
            model="deepseek-flash", messages=messages, stream=True
        )
    except openai.APIStatusError as error:  # nothing has been sent yet, so the caller can get a status
        raise HTTPException(502, error.message) from error
    return StreamingResponse(text_of(stream), media_type="text/plain")


async def text_of(stream: openai.AsyncStream) -> AsyncIterator[str]:
    """Give the text of each chunk. If the browser hangs up, `async with` ends the call to DeepSeek as well."""
    async with stream:
        async for chunk in stream:
            yield chunk.choices[0].delta.content or ""
