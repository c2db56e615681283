import asyncio

import pytest
from summaries import summaries, summary


def test_text_is_sent_after_the_instruction(gateway_emulator):
    assert summary("Cloudflare runs a network.")
    messages = gateway_emulator.requests[0].json["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]


def test_spent_budget_is_reported(gateway_emulator):
    gateway_emulator.fail_next(2045)
    assert summary("Cloudflare runs a network.") == "No summaries today: the budget is spent."


@pytest.mark.vcr
def test_recorded_summary_is_returned():
    assert summary("Cloudflare runs a network.").strip()


@pytest.mark.vcr
def test_recorded_summaries_are_streamed():
    assert all(asyncio.run(summaries(["Cloudflare runs a network.", "DeepSeek trains models."])))
