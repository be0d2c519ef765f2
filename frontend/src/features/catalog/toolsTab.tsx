import type { ToolSpec } from "../../api/types";
import { Empty } from "../../ui/states";
import { RunForm } from "./runForm";

export function ToolsTab({ tools }: { tools: ToolSpec[] }) {
  if (tools.length === 0) {
    return (
      <Empty title="This skill declares no tools">
        Agents load it with <code>load_skill</code>. A <code>tools.json</code> in its folder adds tools.
      </Empty>
    );
  }
  return (
    <ul className="tools">
      {tools.map((tool) => (
        <li key={tool.name} className="tool">
          <h3>{tool.title || tool.name}</h3>
          {tool.title && <code className="muted">{tool.name}</code>}
          <p>{tool.description}</p>
          <RunForm tool={tool} />
          <Schema name="Input schema" schema={tool.inputSchema} />
          {tool.outputSchema && <Schema name="Output schema" schema={tool.outputSchema} />}
        </li>
      ))}
    </ul>
  );
}

function Schema({ name, schema }: { name: string; schema: object }) {
  return (
    <details>
      <summary>{name}</summary>
      <pre className="source">{JSON.stringify(schema, null, 2)}</pre>
    </details>
  );
}
