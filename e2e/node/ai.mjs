// Vercel's `ai` with its providers for OpenAI and Anthropic: node ai.mjs BASE_URL KEY MODEL…
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [base, key, ...models] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${base}/v1`, apiKey: key });
const anthropic = createAnthropic({ baseURL: `${base}/v1`, apiKey: key });
const few = { maxOutputTokens: 8, maxRetries: 0 };

for (const [name, of] of [["openai", (model) => openai.chat(model)], ["anthropic", (model) => anthropic(model)]]) {
  for (const id of models) {
    const model = of(id);
    const answer = await generateText({ model, system: "Be brief.", prompt: "hi", ...few });
    assert.ok(answer.text, `${name} on ${id}`);
    assert.equal(answer.usage.outputTokens, 8);

    const streamed = streamText({ model, system: "Be brief.", prompt: "hi", ...few });
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    assert.equal(text, answer.text);
    assert.equal((await streamed.usage).outputTokens, 8);

    const cities = [];
    const weather = tool({
      description: "The weather in a city", inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => { cities.push(city); return `21 degrees in ${city}`; },
    });
    const steps = await generateText({ model, prompt: "Call the tool.", tools: { weather }, stopWhen: stepCountIs(3), maxRetries: 0 });
    assert.deepEqual(cities, ["mock"]);
    assert.ok(steps.text && steps.steps.length === 2);

    const city = z.object({ name: z.string(), people: z.number() });
    const formed = await generateText({ model, prompt: "Which city? Ask the tool.", output: Output.object({ schema: city }), maxRetries: 0 });
    assert.equal(formed.output.name, "mock");
    console.log("ok", name, id);
  }
  await assert.rejects(generateText({ model: of("nobody"), prompt: "hi", ...few }),
    (error) => APICallError.isInstance(error) && error.statusCode === 404);
}
