import type { ReactNode } from "react";

/** One of a `<dl className="figures">`. */
export function Figure({ name, value, detail }: { name: string; value: ReactNode; detail: string }) {
  return (
    <div className="figure">
      <dt>{name}</dt>
      <dd className="figure-value">{value}</dd>
      <dd className="figure-detail">{detail}</dd>
    </div>
  );
}
