"""OpenAI Agents SDK: plain, streamed, tools, structured output, each asked twice; the second time nobody is asked.

Needs: pip install llm-proxy openai-agents, and OPENAI_API_KEY, or OPENAI_BASE_URL of an OpenAI-compatible server.
"""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

import llm_proxy
from llm_proxy import AsyncOpenAI

set_tracing_disabled(True)  # else the package tells OpenAI of every run


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    print("tools: get_weather", city)
    return f"sunny in {city}"


async def main() -> None:
    model = OpenAIChatCompletionsModel(model="gpt-4o-mini", openai_client=AsyncOpenAI())
    plain = Agent(name="plain", model=model)
    teller = Agent(name="teller", model=model, tools=[get_weather])
    planner = Agent(name="planner", model=model, output_type=Trip)
    for _ in range(2):
        print("plain:", (await Runner.run(plain, "What is the tallest mountain in Europe?")).final_output)
        said = ""
        async for event in Runner.run_streamed(plain, "Name a river.").stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                said += event.data.delta
        print("stream:", said)
        print("told:", (await Runner.run(teller, "What is the weather in Paris?")).final_output)
        print("structured:", repr((await Runner.run(planner, "Plan a trip.")).final_output))


asyncio.run(main())
print("calls:", *llm_proxy.stats(as_frame=False)["status"])
