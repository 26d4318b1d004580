"""Change one import: the second, equal question is answered from the cache.

Needs OPENAI_API_KEY, or OPENAI_BASE_URL of any OpenAI-compatible server and any key.
"""

import time

from llm_proxy import OpenAI  # was: from openai import OpenAI

client = OpenAI()

for attempt in ("first", "again"):
    started = time.perf_counter()
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "What is the capital of Australia?"}],
    )
    outcome = raw.http_response.extensions["llm_proxy"]
    elapsed_ms = 1000 * (time.perf_counter() - started)
    print(f"{attempt}: {raw.parse().choices[0].message.content}")
    print(f"  {outcome.status} {outcome.kind} in {elapsed_ms:.1f} ms, saved ${outcome.saved_usd:.6f}")
