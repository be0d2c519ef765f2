import { useEffect, useRef, useState } from "react";

/** A pause in typing: asking at every letter would ask for words that nobody means. */
const PAUSE_MS = 250;

/**
 * The text of a field whose value lives in the address. `clean` makes the value of a text; it is committed
 * after a pause, and a value that came from elsewhere replaces the text.
 */
export function useTyped(value: string, clean: (text: string) => string, commit: (value: string) => void) {
  const [text, setText] = useState(value);
  const [shown, setShown] = useState(value);
  const wanted = clean(text);
  if (value !== shown) {
    setShown(value);
    if (wanted !== value) setText(value);
  }
  // What else is in the address may change during the pause.
  const latest = useRef(commit);
  useEffect(() => {
    latest.current = commit;
  });
  useEffect(() => {
    if (wanted === value) return;
    const timer = setTimeout(() => latest.current(wanted), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [wanted, value]);
  return [text, setText] as const;
}
