"""DSPy: a program through `llm-proxy serve`: plain, streamed, a tool, a typed output, each asked twice.

Needs: pip install dspy, and llm-proxy serve; OPENAI_BASE_URL is its address, http://127.0.0.1:8080/v1 by itself.
"""

import asyncio
import os

import dspy

# DSPy has a cache of its own, which would hide the proxy's.
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
model = dspy.LM(
    "openai/gpt-4o-mini",
    api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
dspy.configure(lm=model, adapter=dspy.ChatAdapter())


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


plain = dspy.Predict("question -> answer")
typed = dspy.Predict("question -> days: int")
streamed = dspy.streamify(plain, stream_listeners=[dspy.streaming.StreamListener("answer", allow_reuse=True)])


async def stream(question: str) -> str:
    pieces = [piece async for piece in streamed(question=question)]
    return "".join(piece.chunk for piece in pieces if isinstance(piece, dspy.streaming.StreamResponse))


for _ in range(2):
    print("plain:", plain(question="What is the tallest mountain in Europe?").answer)
    print("stream:", asyncio.run(stream("Name a river.")))
    print("structured:", repr(typed(question="How long is the trip?").days))
    agent = dspy.ReAct("question -> answer", tools=[get_weather], max_iters=2)
    print("tools:", agent(question="What is the weather in Paris?").trajectory["observation_0"])
