"""A streamed answer is stored at its last event, and replayed as a stream or as a plain answer.

Needs OPENAI_API_KEY, or OPENAI_BASE_URL of any OpenAI-compatible server and any key.
"""

from llm_proxy import OpenAI

client = OpenAI()
question = [{"role": "user", "content": "Name three rivers in Africa."}]

for attempt in ("first", "again"):
    print(f"{attempt}: ", end="")
    with client.chat.completions.create(
        model="gpt-4o-mini",
        messages=question,
        stream=True,
        # Token counts make the stored answer good for plain requests as well.
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
            elif chunk.usage:
                print(f"  [{chunk.usage.total_tokens} tokens, {stream.response.headers['cache-status']}]")

plain = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=question)
print(f"plain: {plain.parse().choices[0].message.content}  [{plain.headers['cache-status']}]")
