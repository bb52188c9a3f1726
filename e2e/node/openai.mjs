// OpenAI's client for Node: node openai.mjs BASE_URL KEY MODEL…
import assert from "node:assert/strict";
import OpenAI from "openai";

const [base, key, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0, timeout: 60_000 });
const tool = { type: "function", function: { name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } };

for (const model of models) {
  const hello = [{ role: "system", content: "Be brief." }, { role: "user", content: "hi" }];
  const { data: answer, response } = await client.chat.completions.create({ model, messages: hello, max_tokens: 8 }).withResponse();
  assert.ok(answer.choices[0].message.content, model);
  assert.equal(answer.usage.completion_tokens, 8);
  assert.ok(response.headers.get("x-pointsman-request-id"));

  let text = "", used = 0;
  const stream = await client.chat.completions.create({
    model, messages: hello, max_tokens: 8, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    used = chunk.usage?.completion_tokens ?? used;
  }
  assert.equal(text, answer.choices[0].message.content);
  assert.equal(used, 8);

  const ask = [{ role: "user", content: "Call the tool." }];
  const runner = client.chat.completions.stream({ model, messages: ask, tools: [tool] });
  const called = (await runner.finalChatCompletion()).choices[0];
  assert.equal(called.finish_reason, "tool_calls");
  const [call] = called.message.tool_calls;
  assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "mock" }]);
  const told = { role: "tool", tool_call_id: call.id, content: "21 degrees" };
  const later = await client.chat.completions.create({ model, messages: [...ask, called.message, told], tools: [tool] });
  assert.ok(later.choices[0].message.content);
  console.log("ok", model);
}
await assert.rejects(client.chat.completions.create({ model: "nobody", messages: [] }),
  (error) => [400, 404].includes(error.status));
