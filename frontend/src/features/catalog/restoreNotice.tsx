import { useRef, useState } from "react";
import { restore } from "../../api/commands";
import { keys } from "../../api/queries";
import { useCommand } from "../../hooks/useCommand";
import { Confirm } from "../../ui/confirm";
import { Icon } from "../../ui/icons";
import { ErrorNotice } from "../../ui/states";

/** For a skill that was deleted while `version` was active. */
export function RestoreNotice({ id, version }: { id: string; version: number }) {
  const [isAsking, setAsking] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const command = useCommand(restore, [keys.skill(id), keys.skills]);
  const close = () => {
    setAsking(false);
    opener.current?.focus();
  };
  return (
    <section className="restore" aria-label="Deleted">
      <div className="notice notice-warn">
        <Icon name="warning" />
        <p className="notice-body">This skill was deleted: no agent gets it. v{version} was active.</p>
        <button ref={opener} type="button" className="button" onClick={() => setAsking(true)}>
          Restore
        </button>
      </div>
      {isAsking && (
        <Confirm
          question={`Every agent will get v${version} from the next call on.`}
          verb={`Restore v${version}`}
          isPending={command.isPending}
          onCommit={() => command.mutate({ id }, { onSettled: close })}
          onCancel={close}
        />
      )}
      {command.error && <ErrorNotice error={command.error} />}
    </section>
  );
}
