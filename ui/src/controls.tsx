// The period, the filters and the buttons that change them.
import { useEffect, useId, useLayoutEffect, useRef, useState } from "react";
import type { Usage } from "./api";
import { type Change, FILTERS, type Filter, PERIODS, type State } from "./query";

interface SelectorProps {
  state: State;
  change: (change: Change) => void;
}

export function Choice<T extends string>(props: { label: string; choices: Partial<Record<T, string>>; value: T | null; onChange: (value: T) => void }) {
  return (
    <div className="aix-choice" role="group" aria-label={props.label}>
      {Object.entries<string | undefined>(props.choices).map(([value, name]) => (
        <button type="button" key={value} aria-pressed={value === props.value} onClick={() => props.onChange(value as T)}>
          {name}
        </button>
      ))}
    </div>
  );
}

export function PeriodSelector({ state, change }: SelectorProps) {
  return (
    <div className="aix-row">
      <Choice label="Period" choices={PERIODS} value={state.period} onChange={(period) => change({ period })} />
      <div className="aix-row">
        <DayInput label="From" value={state.from} max={state.to} onChange={(from) => change({ from, to: state.to })} />
        <DayInput label="To" value={state.to} min={state.from} onChange={(to) => change({ from: state.from, to })} />
      </div>
    </div>
  );
}

function DayInput(props: { label: string; value: string; min?: string; max?: string; onChange: (day: string) => void }) {
  const { label, value, min = "2020-01-01", max, onChange } = props;
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  return (
    <label className="aix-day">
      {label}
      <input
        type="date"
        required
        title="A day in UTC"
        value={text}
        min={min}
        max={max}
        onBlur={() => setText(value)}
        onChange={({ target }) => {
          setText(target.value);
          if (target.validity.valid) onChange(target.value); // not while its year is being typed
        }}
      />
    </label>
  );
}

const OPTIONS = { dag_id: "dag_ids", model_id: "model_ids", agent_id: "agent_ids", outcome: "outcomes" } as const;

/** @param options - what occurs in the period, once known. */
export function Filters({ state, change, options, hidden }: SelectorProps & { options?: Usage["filters"]; hidden?: Filter }) {
  const names = (Object.keys(FILTERS) as Filter[]).filter((name) => name !== hidden);
  const selected = names.flatMap((name) => state.filters[name].map((value) => ({ name, value })));
  return (
    <>
      <div className="aix-row">
        {names.map((name) => (
          <MultiSelect
            key={name}
            label={FILTERS[name]}
            options={options?.[OPTIONS[name]] ?? []}
            selected={state.filters[name]}
            onChange={(values) => change({ [name]: values })}
          />
        ))}
      </div>
      {selected.length > 0 && (
        <ul className="aix-row aix-chips" aria-label="Filters that apply">
          {selected.map(({ name, value }) => (
            <li key={`${name} ${value}`}>
              <span className="aix-ellipsis" title={value}>
                {FILTERS[name]}: {value}
              </span>
              <button
                type="button"
                aria-label={`Remove the filter ${FILTERS[name]} ${value}`}
                onClick={() => change({ [name]: state.filters[name].filter((other) => other !== value) })}
              >
                ×
              </button>
            </li>
          ))}
          <li>
            <button type="button" className="aix-quiet" onClick={() => change(noFilters())}>
              Clear all
            </button>
          </li>
        </ul>
      )}
    </>
  );
}

export function noFilters(): Change {
  return Object.fromEntries(Object.keys(FILTERS).map((name) => [name, []]));
}

function MultiSelect(props: { label: string; options: string[]; selected: string[]; onChange: (values: string[]) => void }) {
  const { label, selected, onChange } = props;
  const [isOpen, setIsOpen] = useState(false);
  const [search, setSearch] = useState("");
  const root = useRef<HTMLDivElement>(null);
  const popover = useRef<HTMLDivElement>(null);
  const id = useId();
  useEffect(() => {
    if (!isOpen) return;
    const close = ({ target }: Event) => root.current?.contains(target as Node) || setIsOpen(false);
    const events = ["pointerdown", "focusin"];
    events.forEach((event) => document.addEventListener(event, close));
    return () => events.forEach((event) => document.removeEventListener(event, close));
  }, [isOpen]);
  useLayoutEffect(() => {
    if (!popover.current) return;
    popover.current.querySelector("input")?.focus();
    const page = root.current!.closest(".aix")!.getBoundingClientRect();
    if (popover.current.getBoundingClientRect().right > page.right) popover.current.classList.add("aix-from-right");
  }, [isOpen]);
  const all = [...new Set([...selected, ...props.options])].sort((one, two) => one.localeCompare(two, "en"));
  const shown = all.filter((value) => value.toLowerCase().includes(search.toLowerCase()));
  return (
    <div
      className="aix-select"
      ref={root}
      onKeyDown={({ key }) => {
        if (key !== "Escape") return;
        setIsOpen(false);
        root.current?.querySelector("button")?.focus();
      }}
    >
      <button type="button" aria-expanded={isOpen} aria-controls={id} onClick={() => setIsOpen(!isOpen)}>
        <span className="aix-muted">{label}</span> {selected.length ? `${selected.length} selected` : "All"}
        <span aria-hidden> ▾</span>
      </button>
      {isOpen && (
        <div className="aix-popover" ref={popover} id={id} role="group" aria-label={label}>
          <input
            type="search"
            placeholder="Search"
            aria-label={`Search ${label}`}
            value={search}
            onChange={({ target }) => setSearch(target.value)}
          />
          <div className="aix-options">
            {shown.map((value) => (
              <label key={value}>
                <input
                  type="checkbox"
                  checked={selected.includes(value)}
                  onChange={({ target }) =>
                    onChange(target.checked ? [...selected, value] : selected.filter((other) => other !== value))
                  }
                />
                <span>{value}</span>
              </label>
            ))}
            {shown.length === 0 && <p className="aix-muted">{all.length ? "No match" : "None in this period"}</p>}
          </div>
          <button type="button" className="aix-quiet" disabled={!selected.length} onClick={() => onChange([])}>
            Clear
          </button>
        </div>
      )}
    </div>
  );
}
