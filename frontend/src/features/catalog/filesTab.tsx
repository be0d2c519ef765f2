import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { FILE_SHOWN_BYTES_MAX } from "../../api/queries";
import type { FileEntry, SkillDetail } from "../../api/types";
import { useServices } from "../../hooks/useServices";
import { ShortDigest } from "../../ui/badges";
import { bytes } from "../../ui/format";
import { Empty, QueryView } from "../../ui/states";

export function FilesTab({ skill }: { skill: SkillDetail }) {
  const [shown, setShown] = useState("SKILL.md");
  const { version } = skill;
  const file = skill.manifest.find((entry) => entry.path === shown);
  if (skill.manifest.length === 0 || version === null)
    return <Empty title="No files">The active version holds none.</Empty>;
  return (
    <>
      <ul className="files">
        {skill.manifest.map((entry) => (
          <li key={entry.path}>
            <button
              type="button"
              className="file"
              aria-pressed={entry.path === shown}
              onClick={() => setShown(entry.path)}
            >
              <span className="file-path">{entry.path}</span>
              <ShortDigest digest={entry.sha256} />
              <span className="file-size">{bytes(entry.size)}</span>
            </button>
          </li>
        ))}
      </ul>
      {file && <FileContent key={`${version}:${file.path}`} id={skill.id} version={version} file={file} />}
    </>
  );
}

function FileContent({ id, version, file }: { id: string; version: number; file: FileEntry }) {
  const { queries } = useServices();
  const isSmall = file.size <= FILE_SHOWN_BYTES_MAX;
  const query = useQuery({ ...queries.file(id, version, file.path), enabled: isSmall });
  if (!isSmall) return <Empty title={`${file.path} is too large to show here`}>{bytes(file.size)}</Empty>;
  return (
    <QueryView query={query}>
      {(content) => {
        const text = textOf(content);
        return text === null ? (
          <Empty title={`${file.path} is not text`}>{bytes(file.size)}</Empty>
        ) : (
          <pre className="source">{text}</pre>
        );
      }}
    </QueryView>
  );
}

/** null for bytes that are not UTF-8. */
function textOf(content: ArrayBuffer): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(content);
  } catch {
    return null;
  }
}
