"""LangChain, or anything else that takes an `http_client`: give it our transport.

Needs `pip install langchain-openai`, and OPENAI_API_KEY, or OPENAI_BASE_URL of any OpenAI-compatible server.
"""

import os

import openai
from langchain_openai import ChatOpenAI

from llm_proxy import ProxyTransport

# The HTTP client of the family that the installed openai package is built on: httpx2 for 3.x, httpx for 2.x.
http_client = openai.DefaultHttpxClient(transport=ProxyTransport())
model = ChatOpenAI(
    model="gpt-4o-mini",
    base_url=os.environ.get("OPENAI_BASE_URL"),
    http_client=http_client,
    include_response_headers=True,
)

for attempt in ("first", "again"):
    message = model.invoke("What is the tallest mountain in Europe?")
    print(f"{attempt}: {message.content}  [{message.response_metadata['headers']['cache-status']}]")
