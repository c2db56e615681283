"""Summarise texts in the background: `celery -A celery_worker worker`, and `summarise.delay("...")` in another process.

The broker and the result backend are named by CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

import openai
from celery import Celery

from deepseek_gateway import create_client

app = Celery("celery_worker")
client = create_client()  # one for all tasks: each process that the worker forks opens connections of its own


@app.task(
    autoretry_for=(openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError),
    retry_backoff=True,
    max_retries=5,
    acks_late=True,  # a task whose worker was killed is done by another one
)
def summarise(text: str) -> str:
    """Summarise a text. The result is text, because exceptions of openai do not survive a pickle."""
    messages = [{"role": "system", "content": "Summarise in one sentence."}, {"role": "user", "content": text}]
    completion = client.chat.completions.create(model="deepseek-flash", messages=messages)
    return completion.choices[0].message.content or ""
