// The official TypeScript client: lists, calls, reads, and waits to be told of a change.
// `node client.mjs ERA URL`, or `node client.mjs ERA COMMAND ARGUMENT...` for a server over stdio.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const [era, target, ...args] = process.argv.slice(2);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// A connection for every request, so that whoever takes turns takes them.
const fetchOnce = (url, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("connection", "close");
  return fetch(url, { ...init, headers });
};
const transport = target.startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(target), { fetch: fetchOnce })
  : new StdioClientTransport({ command: target, args, env: process.env, stderr: "ignore" });

const client = new Client(
  { name: "tests", version: "0" },
  {
    versionNegotiation: { mode: era },
    listChanged: { resources: { onChanged: () => say({ told: "resources" }) } },
  },
);
await client.connect(transport);
const { tools } = await client.listTools();
const called = await client.callTool({ name: "main_calculator_evaluate", arguments: { expression: "6 * 7" } });
const read = await client.readResource({ uri: "skill://main/calculator/SKILL.md" });
say({ tools: tools.map((tool) => tool.name), called: called.content[0].text, read: read.contents[0].text });
