// The openai package of npm through `llm-proxy serve`: plain, streamed, tools, structured output, each asked twice.
//
// Needs: npm install openai zod, and llm-proxy serve; OPENAI_BASE_URL is its address.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const baseURL = process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8080/v1";
const client = new OpenAI({ baseURL, apiKey: process.env.OPENAI_API_KEY ?? "any" });
const model = "gpt-4o-mini";
const asking = (content) => [{ role: "user", content }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "get_weather", description: "The weather of a city.", parameters } };
const Trip = z.object({ city: z.string(), days: z.number().int() });

for (let round = 0; round < 2; round++) {
  const asked = client.chat.completions.create({ model, messages: asking("What is the tallest mountain in Europe?") });
  const { data, response } = await asked.withResponse();
  console.log("plain:", data.choices[0].message.content, `[${response.headers.get("cache-status")}]`);

  let said = "";
  const stream = await client.chat.completions.create({ model, messages: asking("Name a river."), stream: true });
  for await (const chunk of stream) said += chunk.choices[0]?.delta?.content ?? "";
  console.log("stream:", said);

  const called = await client.chat.completions.create({ model, messages: asking("Weather in Paris?"), tools: [weather] });
  const { name, arguments: given } = called.choices[0].message.tool_calls[0].function;
  console.log("tools:", name, given);

  const form = { model, messages: asking("Plan a trip."), response_format: zodResponseFormat(Trip, "trip") };
  const trip = (await client.chat.completions.parse(form)).choices[0].message.parsed;
  console.log("structured:", JSON.stringify(trip));
}
