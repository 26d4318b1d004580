"""Ten equal questions at once cost one call: the others share its answer while it is under way.

Needs OPENAI_API_KEY, or OPENAI_BASE_URL of any OpenAI-compatible server and any key.
"""

import asyncio

from llm_proxy import AsyncOpenAI


async def ask(client: AsyncOpenAI, number: int) -> str:
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "How many moons does Mars have?"}],
    )
    return f"caller {number}: {raw.headers['cache-status']}"


async def main() -> None:
    async with AsyncOpenAI() as client:
        for line in await asyncio.gather(*(ask(client, number) for number in range(10))):
            print(line)


asyncio.run(main())
