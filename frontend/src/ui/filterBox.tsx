import { useEffect, useRef } from "react";
import { Icon } from "./icons";

interface FilterBoxProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  isLarge?: boolean;
}

/** A search field; `/` focuses it from anywhere on the screen, as in the tools people know. */
export function FilterBox({ label, value, onChange, isLarge = false }: FilterBoxProps) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const focus = (press: KeyboardEvent) => {
      const isTyping = press.target instanceof HTMLElement && press.target.matches("input, textarea, select");
      if (press.key !== "/" || isTyping || press.ctrlKey || press.metaKey) return;
      press.preventDefault();
      input.current?.focus();
    };
    document.addEventListener("keydown", focus);
    return () => document.removeEventListener("keydown", focus);
  }, []);
  return (
    <label className={isLarge ? "filter filter-large" : "filter"}>
      <Icon name="search" />
      <span className="visually-hidden">{label}</span>
      <input
        ref={input}
        type="search"
        placeholder={label}
        value={value}
        spellCheck={false}
        autoComplete="off"
        onChange={(change) => onChange(change.target.value)}
      />
      <span className="key-hint" aria-hidden="true">
        /
      </span>
    </label>
  );
}
