// The official TypeScript client: lists, calls, reads, and waits to be told of a change. `node client.mjs URL ERA`.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, era] = process.argv.slice(2);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const client = new Client(
  { name: "tests", version: "0" },
  {
    versionNegotiation: { mode: era },
    listChanged: { resources: { onChanged: () => say({ told: "resources" }) } },
  },
);
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const { tools } = await client.listTools();
const called = await client.callTool({ name: "main_calculator_evaluate", arguments: { expression: "6 * 7" } });
const read = await client.readResource({ uri: "skill://main/calculator/SKILL.md" });
say({ tools: tools.map((tool) => tool.name), called: called.content[0].text, read: read.contents[0].text });
