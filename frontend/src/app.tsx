import { useCallback, useSyncExternalStore } from "react";
import { KeyForm } from "./features/access/keyForm";
import { AuditScreen } from "./features/audit/auditScreen";
import { CatalogScreen } from "./features/catalog/catalogScreen";
import { EventsScreen } from "./features/events/eventsScreen";
import { InvocationsScreen } from "./features/invocations/invocationsScreen";
import { OverviewScreen } from "./features/overview/overviewScreen";
import { SearchScreen } from "./features/search/searchScreen";
import { SourcesScreen } from "./features/sources/sourcesScreen";
import { hrefOf, useRoute } from "./hooks/useRoute";
import { useServices } from "./hooks/useServices";
import { ConnectionState } from "./ui/connectionState";
import { Icon, type IconName } from "./ui/icons";

const SCREENS: { name: IconName; path: string; title: string; Screen: () => React.ReactNode }[] = [
  { name: "overview", path: "", title: "Overview", Screen: OverviewScreen },
  { name: "catalog", path: "catalog", title: "Catalog", Screen: CatalogScreen },
  { name: "search", path: "search", title: "Search", Screen: SearchScreen },
  { name: "events", path: "events", title: "Events", Screen: EventsScreen },
  { name: "invocations", path: "invocations", title: "Invocations", Screen: InvocationsScreen },
  { name: "sources", path: "sources", title: "Sources", Screen: SourcesScreen },
  { name: "audit", path: "audit", title: "Audit", Screen: AuditScreen },
];

export function App() {
  const { access } = useServices();
  const { path } = useRoute();
  const watch = useCallback((onChange: () => void) => access.watch(onChange), [access]);
  const isRefused = useSyncExternalStore(watch, () => access.isRefused);
  const current = SCREENS.find((screen) => screen.path === (path[0] ?? "")) ?? SCREENS[0];
  if (isRefused) return <KeyForm />;
  return (
    <div className="shell">
      <button type="button" className="skip" onClick={skipToMain}>
        Skip to the content
      </button>
      <header className="top">
        <a className="brand" href={hrefOf([])}>
          <BrandMark />
          Skillwire
        </a>
        <ConnectionState />
      </header>
      <nav className="nav" aria-label="Screens">
        {SCREENS.map(({ name, path: target, title }) => (
          <a
            key={name}
            href={hrefOf(target ? [target] : [])}
            aria-current={current?.path === target ? "page" : undefined}
          >
            <Icon name={name} />
            <span>{title}</span>
          </a>
        ))}
      </nav>
      <main id="main" className="main" tabIndex={-1}>
        {current && <current.Screen />}
      </main>
    </div>
  );
}

/** A button, because the part after `#` is the route here: a link could not name a place in the page. */
function skipToMain(): void {
  document.getElementById("main")?.focus();
}

function BrandMark() {
  return (
    <svg className="brand-mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M6 20c5 0 5-8 10-8s5 8 10 8" />
      <circle cx="16" cy="12" r="3" />
    </svg>
  );
}
