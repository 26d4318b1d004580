// The Vercel AI SDK through `llm-proxy serve`: plain, streamed, tools, structured output, each asked twice.
//
// Needs: npm install ai @ai-sdk/openai-compatible zod, and llm-proxy serve; OPENAI_BASE_URL is its address.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const proxy = createOpenAICompatible({
  name: "llm-proxy",
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8080/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "any",
  supportsStructuredOutputs: true,
});
const model = proxy("gpt-4o-mini");
const city = z.object({ city: z.string() });
const getWeather = tool({ description: "The weather of a city.", inputSchema: city });

for (let round = 0; round < 2; round++) {
  const { text, response } = await generateText({ model, prompt: "What is the tallest mountain in Europe?" });
  console.log("plain:", text, `[${response.headers["cache-status"]}]`);

  let said = "";
  for await (const piece of streamText({ model, prompt: "Name a river." }).textStream) said += piece;
  console.log("stream:", said);

  const { toolCalls } = await generateText({ model, prompt: "Weather in Paris?", tools: { get_weather: getWeather } });
  console.log("tools:", toolCalls[0].toolName, JSON.stringify(toolCalls[0].input));

  const schema = z.object({ city: z.string(), days: z.number().int() });
  const { object } = await generateObject({ model, schema, prompt: "Plan a trip." });
  console.log("structured:", JSON.stringify(object));
}
