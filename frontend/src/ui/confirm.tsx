import { useEffect, useRef } from "react";

interface ConfirmProps {
  /** What will happen. */
  question: string;
  verb: string;
  isPending: boolean;
  onCommit: () => void;
  onCancel: () => void;
}

/** Asks before something that others notice or that cannot be undone. It takes the focus; its owner gives it back. */
export function Confirm({ question, verb, isPending, onCommit, onCancel }: ConfirmProps) {
  const commit = useRef<HTMLButtonElement>(null);
  useEffect(() => commit.current?.focus(), []);
  return (
    <fieldset className="confirm" disabled={isPending}>
      <legend>{question}</legend>
      <button ref={commit} type="button" className="button button-primary" onClick={onCommit}>
        {isPending ? "Working" : verb}
      </button>
      <button type="button" className="button" onClick={onCancel}>
        Cancel
      </button>
    </fieldset>
  );
}
