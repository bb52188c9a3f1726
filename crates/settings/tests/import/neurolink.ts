import { NeuroLink, type ProviderConfig } from "@juspay/neurolink";
import { log } from "./log";

// What the quotes in these do is nobody's business: " ' `
const QUOTED = /^["'`]\/[^"'/]*$/gu;
const half = (QUOTED.source.length / 2) / 4;

/* { providers: "not this one" } */
interface Wanted {
  providers: ProviderConfig[];
  loadBalancing?: string;
}

const PRICES = [
  { model: "gpt-4o", input: 2.5, output: 10, note: `it's "cheap"` },
  { model: "mistral-small-latest", input: 0.1, output: 0.3 },
  { model: 'claude', tiers: [{ upTo: 200_000, input: 3 }, { upTo: Infinity, input: 6 }] },
];

function cheapest(models: string[]): string {
  for (const one of models) {
    if (/[{}]/.test(one)) { continue; }
    return PRICES.find(({ model }) => model === one)?.model ?? models[0];
  }
  return `${models.map((m) => `"${m}"`).join(", ")}`;
}

export const wanted: Wanted = { providers: [], ...({} as object) };

const region = process.env.REGION ?? "eu";

export const ai = new NeuroLink({
  ...defaults,
  providers: [
    {
      name: "openai-key-1",
      priority: 1,
      weight: 3,
      config: {
        apiKey: `${process.env.OPENAI_KEY_1!}`,
        model: "gpt-4o",
        maxTokens: 4096,
      },
    },
    {
      name: "openai-key-2",
      priority: 1,
      config: {
        apiKey: process.env.OPENAI_KEY_2 as string,
        model: cheapest(["gpt-4o", "gpt-4o-mini"]),
        organization: process.env["OPENAI ORG"],
      },
    },
    {
      name: "azure",
      priority: 1,
      config: {
        endpoint: `https://${process.env.AZURE_RESOURCE ?? "acme"}.openai.azure.com`,
        apiKey: process.env.AZURE_OPENAI_API_KEY,
        deployment: "gpt-4o-eu",
        apiVersion: "2024-10-21",
      },
    },
    {
      name: "bedrock",
      priority: 2,
      region: "eu",
      config: {
        region: "eu-central-1",
        credentials: {
          accessKeyId: process.env.AWS_ACCESS_KEY_ID!,
          secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY!,
          expiration: new Date(),
        },
        model: "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
      },
      condition: (req) => /^(eu|"uk")$/.test(req.metadata?.region ?? region),
    },
    {
      name: "vertex-eu",
      priority: 2,
      config: {
        projectId: process.env.GOOGLE_VERTEX_PROJECT_ID,
        location: process.env.GOOGLE_VERTEX_LOCATION ?? "europe-west1",
        credentials: process.env.GOOGLE_APPLICATION_CREDENTIALS,
        model: "claude-sonnet-4@20250514",
      },
    },
    {
      name: "groq",
      priority: 3,
      config: { apiKey: process.env.GROQ_API_KEY || "a}b", model: "\x6clama-3.3\u002d70b-versatile" },
    },
    {
      name: "local",
      priority: 4,
      config: { baseURL: `http://${process.env.HOST}:${process.env.PORT}/v1`, model: "llama" } as const,
      async healthCheck() {
        return (await fetch("http://localhost:8000/health")).ok; // } ] }
      },
    },
    { name: "sagemaker", priority: 5, config: { region: "us-east-1" } },
    makeProvider("mistral"),
  ],
  loadBalancing: {
    strategy: "weighted-round-robin",
    weights: { "openai-key-1": 2, nobody: 1 },
    stickyBy: "session",
  },
  failoverConfig: { enabled: true, maxRetries: 3 },
  onError(error) { log(`}}} ${error.message}`); },
});
