import { type FormEvent, type KeyboardEvent, useId, useState } from "react";
import { callTool } from "../../api/commands";
import { keys } from "../../api/queries";
import type { ToolCallAnswer, ToolSpec } from "../../api/types";
import { useCommand } from "../../hooks/useCommand";
import { isRecord } from "../../json";
import { Badge, ShortDigest } from "../../ui/badges";
import { duration } from "../../ui/format";
import { ErrorNotice } from "../../ui/states";
import { exampleArguments } from "./exampleArguments";

/** Calls one tool with arguments written as JSON; Ctrl or Cmd with Enter runs it from the text. */
export function RunForm({ tool }: { tool: ToolSpec }) {
  const [text, setText] = useState(() => JSON.stringify(exampleArguments(tool.inputSchema), null, 2));
  const [problem, setProblem] = useState("");
  const command = useCommand(callTool, [keys.invocations]);
  const problemId = useId();
  const run = () => {
    const parsed = parseArguments(text);
    setProblem(parsed.problem);
    if (parsed.value && !command.isPending) command.mutate({ tool: tool.name, arguments: parsed.value });
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    run();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  };
  return (
    <form className="run" onSubmit={submit}>
      <label>
        <span className="field-name">Arguments (JSON)</span>
        <textarea
          rows={Math.min(12, Math.max(3, text.split("\n").length))}
          value={text}
          spellCheck={false}
          aria-invalid={problem !== ""}
          aria-describedby={problem ? problemId : undefined}
          onChange={(change) => setText(change.target.value)}
          onKeyDown={press}
        />
      </label>
      {problem && (
        <p id={problemId} className="field-problem" role="alert">
          {problem}
        </p>
      )}
      <button type="submit" className="button button-primary" disabled={command.isPending}>
        {command.isPending ? "Running" : "Run"}
      </button>
      {command.error && <ErrorNotice error={command.error} />}
      {command.data && <CallAnswer answer={command.data} />}
    </form>
  );
}

function parseArguments(text: string): { value?: Record<string, unknown>; problem: string } {
  try {
    const value: unknown = JSON.parse(text.trim() || "{}");
    return isRecord(value) ? { value, problem: "" } : { problem: "Arguments are a JSON object: { ... }" };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : "This is not JSON" };
  }
}

function CallAnswer({ answer }: { answer: ToolCallAnswer }) {
  const logs = Array.isArray(answer.logs) ? answer.logs.join("\n") : answer.logs;
  return (
    <output className="answer">
      <span className="answer-facts">
        <Badge tone={answer.warm ? "ok" : "quiet"}>{answer.warm ? "warm" : "cold start"}</Badge>
        <span>{duration(answer.duration_ms)}</span>
        <span>
          {answer.skill} <span className="version">v{answer.version}</span>
        </span>
        <ShortDigest digest={answer.digest} />
        {answer.worker_pid !== null && <span className="muted">worker {answer.worker_pid}</span>}
      </span>
      <pre className="source">
        {typeof answer.result === "string" ? answer.result : JSON.stringify(answer.result, null, 2)}
      </pre>
      {logs && (
        <details>
          <summary>Logs</summary>
          <pre className="source">{logs}</pre>
        </details>
      )}
    </output>
  );
}
