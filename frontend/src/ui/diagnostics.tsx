import type { Diagnostic, Severity } from "../api/types";
import { Icon, type IconName } from "./icons";

const ICONS: Record<Severity, IconName> = { error: "error", warning: "warning", info: "info" };

export function Diagnostics({ items }: { items: Diagnostic[] }) {
  return (
    <ul className="diagnostics">
      {items.map((item) => (
        <li
          key={`${item.path}:${item.line}:${item.message}`}
          className={`diagnostic diagnostic-${item.severity}`}
        >
          <Icon name={ICONS[item.severity] ?? "info"} />
          <div>
            <p>
              <span className="visually-hidden">{item.severity}: </span>
              {item.message}
              {item.path && (
                <code className="diagnostic-place">
                  {item.path}
                  {item.line ? `:${item.line}` : ""}
                </code>
              )}
            </p>
            {item.hint && <p className="muted">{item.hint}</p>}
          </div>
        </li>
      ))}
    </ul>
  );
}
