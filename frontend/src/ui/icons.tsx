const PATHS = {
  overview: "M3 12h4l2-6 4 12 2-6h6",
  catalog: "M4 5h16M4 12h16M4 19h16",
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16.2 16.2 20 20",
  events: "M13 3 5 14h6l-1 7 8-11h-6z",
  invocations: "M7 4l12 8-12 8z",
  sources: "M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z",
  audit: "M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6zM8.5 12l2.5 2.5 4.5-5",
  open: "M9 6l6 6-6 6",
  close: "M6 6l12 12M18 6 6 18",
  pause: "M8 5v14M16 5v14",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  warning: "M12 4 2.8 20h18.4zM12 10v4.5M12 17.4v.1",
  error: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 7.5V13M12 16.4v.1",
  info: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 11v5.5M12 7.6v.1",
} as const;

export type IconName = keyof typeof PATHS;

/** Decoration only: what it stands for is always written beside it, or is the label of its button. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
