"""Simon Willison's `llm` through `llm-proxy serve`: plain, streamed, tools, structured output, each asked twice.

Needs: pip install llm, and llm-proxy serve; OPENAI_BASE_URL is its address, http://127.0.0.1:8080/v1 by itself. On the
command line the same model is a line in extra-openai-models.yaml, see docs/frameworks.md.
"""

import json
import os

from llm.default_plugins.openai_models import Chat
from pydantic import BaseModel

model = Chat(
    "llm-proxy",
    model_name="gpt-4o-mini",
    api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    supports_schema=True,
    supports_tools=True,
)
model.key = os.environ.get("OPENAI_API_KEY", "any")


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def get_weather(city: str) -> str:
    """The weather of a city."""
    print("tools: get_weather", city)
    return f"sunny in {city}"


for _ in range(2):
    print("plain:", model.prompt("What is the tallest mountain in Europe?", stream=False).text())
    print("stream:", "".join(model.prompt("Name a river.")))
    print("told:", model.chain("What is the weather in Paris?", tools=[get_weather]).text())
    print("structured:", repr(Trip(**json.loads(model.prompt("Plan a trip.", schema=Trip).text()))))
