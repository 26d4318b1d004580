"""LlamaIndex: plain, streamed, tools, structured output, each asked twice; the second time nobody upstream is asked.

Needs: pip install llm-proxy llama-index-llms-openai, and OPENAI_API_KEY, or OPENAI_BASE_URL of an OpenAI-compatible
server.
"""

import os

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel

import llm_proxy
from llm_proxy import ProxyTransport


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


model = OpenAI(
    model="gpt-4o-mini",
    api_base=os.environ.get("OPENAI_BASE_URL"),
    http_client=openai.DefaultHttpxClient(transport=ProxyTransport()),
)
tool = FunctionTool.from_defaults(get_weather)

for _ in range(2):
    print("plain:", model.chat([ChatMessage("What is the tallest mountain in Europe?")]).message.content)
    print("stream:", "".join(part.delta or "" for part in model.stream_chat([ChatMessage("Name a river.")])))
    answer = model.chat_with_tools([tool], user_msg="What is the weather in Paris?")
    (called,) = model.get_tool_calls_from_response(answer)
    print("tools:", called.tool_name, called.tool_kwargs)
    print("structured:", repr(model.as_structured_llm(Trip).chat([ChatMessage("Plan a trip.")]).raw))

print("calls:", *llm_proxy.stats(as_frame=False)["status"])
