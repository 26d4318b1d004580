// The shared suite of clients, by the openai package of npm. The cases are in cases.json.
//
// usage: node suite.mjs BASE_URL UPSTREAM_URL       prints one line of JSON a case; modules come from NODE_PATH
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_PATH}/`);
const OpenAI = require("openai").default;
const [baseURL, upstreamURL] = process.argv.slice(2);
const cases = JSON.parse(readFileSync(new URL("cases.json", import.meta.url), "utf8"));
const STATUSES = { hit: "; hit", miss: "fwd=uri-miss", bypass: "fwd=bypass", request: "fwd=request" };

const named = (value, path) => path.split(".").reduce((found, step) => found[step], value);
const check = (expected, found) => {
  for (const [path, value] of Object.entries(expected ?? {})) assert.deepEqual(named(found, path), value, path);
};
const delta = (chunk) => chunk.choices?.[0]?.delta ?? {};
const textOf = (chunk) => (chunk.type === "response.output_text.delta" ? chunk.delta : (delta(chunk).content ?? ""));

function toolIn(chunks) {
  let name = "";
  let said = "";
  for (const chunk of chunks) {
    if (chunk.type === "response.output_item.added") name = chunk.item.name ?? name;
    if (chunk.type === "response.function_call_arguments.delta") said += chunk.delta;
    for (const call of delta(chunk).tool_calls ?? []) {
      name = call.function.name || name;
      said += call.function.arguments ?? "";
    }
  }
  return [name, said];
}

function checkAnswer(step, answer, chunks) {
  check(step.expect, answer);
  if ("text" in step) assert.equal(chunks.map(textOf).join(""), step.text);
  if ("tool" in step) assert.deepEqual(toolIn(chunks), step.tool);
  if ("expect_last" in step) check(step.expect_last, chunks.at(-1));
  if ("json" in step) {
    const text = answer.choices?.[0].message.content ?? answer.output[0].content[0].text;
    assert.deepEqual(JSON.parse(text), step.json);
  }
  for (const [path, wanted] of Object.entries(step.find ?? {}))
    assert.ok(named(answer, path).some((row) => Object.entries(wanted).every(([key, value]) => row[key] === value)));
}

async function files(client, given) {
  const raw = Buffer.from(given.content, "utf8");
  const made = await client.files.create({ file: await OpenAI.toFile(raw, given.name), purpose: "user_data" });
  assert.equal((await client.files.retrieve(made.id)).filename, given.name);
  const kept = Buffer.from(await (await client.files.content(made.id)).arrayBuffer());
  assert.ok(kept.includes(raw));
  assert.ok((await client.files.list()).data.some((row) => row.id === made.id));
  assert.ok((await client.files.delete(made.id)).deleted);
}

async function run(step) {
  const client = new OpenAI({ baseURL, apiKey: "node", maxRetries: step.retries ?? 0 });
  if (step.do === "files") return files(client, step.with);
  if ("path" in step) return client.post(step.path, { body: {} });
  const names = step.do.split(".");
  const owner = names.slice(0, -1).reduce((found, name) => found[name], client);
  const options = { headers: step.headers };
  const asked = names.at(-1) === "list" ? owner.list(options) : owner[names.at(-1)](step.with, options);
  if ("bytes" in step) return assert.equal((await (await asked).arrayBuffer()).byteLength, step.bytes);
  const { data, response } = await asked.withResponse();
  const chunks = [];
  if (step.with.stream) for await (const chunk of data) chunks.push(chunk);
  checkAnswer(step, data, chunks);
  if ("cache" in step) assert.ok(response.headers.get("cache-status").includes(STATUSES[step.cache]), step.cache);
}

async function refused(step) {
  const error = await run(step).then(() => assert.fail("no error"), (found) => found);
  if (error instanceof assert.AssertionError) throw error;
  if (!step.error.kind) return; // how a broken connection shows differs between clients; that it shows does not
  assert.equal(error.constructor.name, step.error.kind);
  assert.equal(error.status, step.error.status);
  assert.ok(error.message.includes(step.error.message), error.message);
  assert.equal(error.code, step.error.code);
}

const calls = async () => (await (await fetch(`${upstreamURL}/simulated/calls`)).json()).calls;

for (const { name, steps, upstream } of cases) {
  const before = await calls();
  let trouble = "";
  try {
    for (const step of steps) await ("error" in step ? refused(step) : run(step));
    const made = (await calls()) - before;
    assert.ok(made >= upstream[0] && made <= upstream[1], `${made} calls upstream, not ${upstream}`);
  } catch (error) {
    trouble = String(error.stack ?? error);
  }
  console.log(JSON.stringify({ name, trouble }));
}
