"""Random faults, callers of every kind, and the rules that hold nevertheless: `python -m tests.chaos --minutes 5`.

The servers are the emulator, which is killed and comes back on the same port, and a raw socket server. The callers are
threads, tasks of an event loop over httpx and over aiohttp, and processes that fork. Each call carries a marker in its
prompt, and the answer repeats the prompt.

A call ends in one of these ways:

- a result, which is right and whole;
- a typed error, which is an `openai.OpenAIError`;
- its caller has left it: a task was cancelled, or a stream was closed or dropped after some events;
- a raw exception, a wrong text, a part of a text without an error, or no end at all. These break a rule.

A call is answered twice if its caller gets text of its answer twice, or text of another answer. Both are wrong texts.
It is also answered twice if the raw server has sent it a whole answer that no fault spoils, and then gets the same call
again: the answer was at hand, and was paid for twice. A server may well answer a call twice if the first answer was cut
or came too late. Therefore calls with a very short timeout, which may give up at any moment, are not held to this rule.

The seed decides what the callers ask and what the raw server does with the attempts of a call. It does not decide how
the processes and the network interleave, so a run with the same seed meets the same faults in another order.
"""
