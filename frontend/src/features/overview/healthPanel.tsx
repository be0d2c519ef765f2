import { useQuery } from "@tanstack/react-query";
import { useServices } from "../../hooks/useServices";
import { HealthBadge } from "../../ui/badges";
import { Panel } from "../../ui/page";
import { QueryView } from "../../ui/states";

export function HealthPanel() {
  const { queries } = useServices();
  const query = useQuery(queries.health());
  return (
    <Panel title="Health" aside={query.data && <HealthBadge health={query.data.status} />}>
      <QueryView query={query}>
        {({ checks }) => (
          <ul className="checks">
            {Object.entries(checks).map(([name, check]) => (
              <li key={name} className="check">
                <span className={`dot dot-${check.status}`} aria-hidden="true" />
                <span className="check-name">{name}</span>
                <span className="check-detail">{check.detail || check.status}</span>
                {check.status !== "ok" && <HealthBadge health={check.status} />}
              </li>
            ))}
          </ul>
        )}
      </QueryView>
    </Panel>
  );
}
