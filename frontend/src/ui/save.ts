/** Has the browser keep `content` as a file, as a link with `download` would: a link cannot send the key. */
export function saveFile(content: ArrayBuffer, name: string, type: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
