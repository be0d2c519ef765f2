/** A place in the change log. On the wire: `<epoch>-<seq>-<first 8 hex of the row's chained hash>`. */
export interface Position {
  epoch: string;
  seq: number;
}

const SHAPE = /^(.+)-(\d+)-([0-9a-f]{1,8})$/;

/** null for anything that is not an event id, so that a surprise never becomes a resume cursor. */
export function parsePosition(id: string): Position | null {
  const match = SHAPE.exec(id);
  if (!match) return null;
  return { epoch: match[1] ?? "", seq: Number(match[2]) };
}

/** The sequence number of an id or of a bare number; null when there is none. */
export function seqOf(position: string | number | null | undefined): number | null {
  if (position === null || position === undefined || position === "") return null;
  if (typeof position === "number") return position;
  if (/^\d+$/.test(position)) return Number(position);
  return parsePosition(position)?.seq ?? null;
}
