import type { ReactNode } from "react";

export interface Column {
  title: string;
  /** Right-aligned, as its cells are by the class `number`. */
  isNumber?: boolean;
  /** Left out where there is little room, as its cells are by the class `wide-only`. */
  isWideOnly?: boolean;
}

interface TableProps {
  columns: readonly Column[];
  /** Rows are links as a whole (`row-link`). */
  hasLinks?: boolean;
  /** Its rows. */
  children: ReactNode;
}

export function Table({ columns, hasLinks = false, children }: TableProps) {
  return (
    <table className={hasLinks ? "table table-links" : "table"}>
      <thead>
        <tr>
          {columns.map((column) => (
            <th key={column.title} scope="col" className={classOf(column)}>
              {column.title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>{children}</tbody>
    </table>
  );
}

function classOf({ isNumber, isWideOnly }: Column): string | undefined {
  const names = [isNumber && "number", isWideOnly && "wide-only"].filter(Boolean);
  return names.length > 0 ? names.join(" ") : undefined;
}
