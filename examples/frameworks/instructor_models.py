"""Instructor: structured output by tools and by JSON schema, streamed, and plain, each asked twice.

Needs: pip install llm-proxy instructor, and OPENAI_API_KEY, or OPENAI_BASE_URL of an OpenAI-compatible server.
"""

import instructor
from pydantic import BaseModel

import llm_proxy
from llm_proxy import OpenAI


class Trip(BaseModel):
    """A journey."""

    city: str
    days: int


client = OpenAI()
by_tools = instructor.from_openai(client)
by_schema = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)

for _ in range(2):
    question = {"role": "user", "content": "What is the tallest mountain in Europe?"}
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=[question])
    print("plain:", answer.choices[0].message.content)
    trip = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Plan a trip."}]}
    print("tools:", repr(by_tools.create(response_model=Trip, **trip)))
    print("structured:", repr(by_schema.create(response_model=Trip, **trip)))
    *_, whole = by_tools.create_partial(response_model=Trip, **trip)
    print("stream:", repr(Trip(**whole.model_dump())))

print("calls:", *llm_proxy.stats(as_frame=False)["status"])
