"""LiteLLM's SDK as a client of `llm-proxy serve`: plain, streamed, tools, structured output, each asked twice.

Needs: pip install litellm, and llm-proxy serve; OPENAI_BASE_URL is its address, http://127.0.0.1:8080/v1 by itself.
"""

import os

import litellm
from pydantic import BaseModel

CALL = {
    "model": "openai/gpt-4o-mini",
    "api_base": os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    "api_key": os.environ.get("OPENAI_API_KEY", "any"),
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


def ask(text, **options):
    return litellm.completion(**CALL, messages=[{"role": "user", "content": text}], **options)


for _ in range(2):
    answer = ask("What is the tallest mountain in Europe?")
    said = answer._response_headers or answer._hidden_params.get("additional_headers", {})
    status = said.get("cache-status") or said.get("llm_provider-cache-status")
    print("plain:", answer.choices[0].message.content, f"[{status}]")
    chunks = ask("Name a river.", stream=True)
    print("stream:", "".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    called = ask("What is the weather in Paris?", tools=[{"type": "function", "function": WEATHER}])
    function = called.choices[0].message.tool_calls[0].function
    print("tools:", function.name, function.arguments)
    trip = ask("Plan a trip.", response_format=Trip).choices[0].message.content
    print("structured:", repr(Trip.model_validate_json(trip)))
