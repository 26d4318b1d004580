"""LangChain: plain, streamed, tools, structured output, each asked twice; the second time nobody upstream is asked.

Needs: pip install llm-proxy langchain-openai, and OPENAI_API_KEY, or OPENAI_BASE_URL of an OpenAI-compatible server.
"""

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import llm_proxy
from llm_proxy import ProxyTransport


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


# The HTTP client of the family that the installed openai package is built on: httpx2 for 3.x, httpx for 2.x.
http_client = openai.DefaultHttpxClient(transport=ProxyTransport())
model = ChatOpenAI(model="gpt-4o-mini", http_client=http_client)

for _ in range(2):
    print("plain:", model.invoke("What is the tallest mountain in Europe?").content)
    print("stream:", "".join(str(chunk.content) for chunk in model.stream("Name a river.")))
    called = model.bind_tools([get_weather]).invoke("What is the weather in Paris?").tool_calls[0]
    print("tools:", called["name"], called["args"])
    print("structured:", model.with_structured_output(Trip, method="json_schema").invoke("Plan a trip."))

print("calls:", *llm_proxy.stats(as_frame=False)["status"])
