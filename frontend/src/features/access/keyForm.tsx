import { type FormEvent, useState } from "react";
import { useServices } from "../../hooks/useServices";

/** Asks for an API key after the server refused us; with a new one everything is read again. */
export function KeyForm() {
  const { access, queryClient, stream } = useServices();
  const [key, setKey] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!key.trim()) return;
    access.offer(key.trim());
    stream.start();
    void queryClient.resetQueries();
  };
  return (
    <main className="gate">
      <form className="panel gate-form" onSubmit={submit}>
        <h1>This server asks for a key</h1>
        {access.hasRefusedKey && (
          <p className="field-problem" role="alert">
            The server refused that key.
          </p>
        )}
        <p className="muted">
          Paste an API key with the scope <code>read</code>; running tools needs <code>invoke</code>. It is
          kept in this tab and forgotten when the tab closes.
        </p>
        <label>
          <span className="field-name">API key</span>
          <input
            type="password"
            autoComplete="off"
            value={key}
            onChange={(change) => setKey(change.target.value)}
            // biome-ignore lint/a11y/noAutofocus: the form is all there is on the page
            autoFocus
          />
        </label>
        <button type="submit" className="button button-primary" disabled={!key.trim()}>
          Connect
        </button>
      </form>
    </main>
  );
}
