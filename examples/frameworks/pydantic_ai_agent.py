"""Pydantic AI: plain, streamed, tools, structured output, each asked twice; the second time nobody upstream is asked.

Needs: pip install llm-proxy "pydantic-ai-slim[openai]", and OPENAI_API_KEY, or OPENAI_BASE_URL of an OpenAI-compatible
server.
"""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import llm_proxy
from llm_proxy import AsyncOpenAI


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    print("tools: get_weather", city)
    return f"sunny in {city}"


async def main() -> None:
    model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=AsyncOpenAI()))
    plain, planner = Agent(model), Agent(model, output_type=Trip)
    teller = Agent(model, tools=[get_weather])
    for _ in range(2):
        print("plain:", (await plain.run("What is the tallest mountain in Europe?")).output)
        async with plain.run_stream("Name a river.") as stream:
            print("stream:", "".join([piece async for piece in stream.stream_text(delta=True)]))
        print("told:", (await teller.run("What is the weather in Paris?")).output)
        print("structured:", repr((await planner.run("Plan a trip.")).output))


asyncio.run(main())
print("calls:", *llm_proxy.stats(as_frame=False)["status"])
