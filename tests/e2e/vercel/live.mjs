// The Vercel AI SDK under its own telemetry. Arguments: upstream URL, collector URL, model.
import { createOpenAI } from '@ai-sdk/openai';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { embed, generateText, stepCountIs, streamText } from 'ai';

const ROUNDS = 3;
const [upstream, otlp, model] = process.argv.slice(2);
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ 'service.name': 'live-vercel', 'team.id': model }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: `${otlp}/v1/traces` }))],
});
provider.register();
const openai = createOpenAI({ baseURL: `${upstream}/v1`, apiKey: 'sk-x' });
const telemetry = { experimental_telemetry: { isEnabled: true } };
const asked = { model: openai.chat(model), prompt: 'some words to count', maxOutputTokens: 200, ...telemetry };

for (let round = 0; round < ROUNDS; round += 1) {
  await generateText({ ...asked, stopWhen: stepCountIs(1) });
  await streamText(asked).consumeStream();
  await generateText({ ...asked, model: openai.responses(model) });
  await embed({ model: openai.textEmbeddingModel(model), value: 'some words', ...telemetry });
}
try {
  await generateText({ ...asked, model: openai.chat(`${model}-busy`), maxRetries: 0 });
  throw new Error('the upstream is never too busy');
} catch (error) {
  if (error.statusCode !== 429) throw error;
}
await provider.shutdown();
