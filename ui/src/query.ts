// The state of the page, which is in the address, and the API's query that follows from it.

export const PERIODS = { "24h": "24 h", "7d": "7 days", "30d": "30 days", "90d": "90 days", "365d": "1 year" };
export const GROUPS = { asset: "Model or agent", dag: "DAG", kind: "Kind" };
export const FILTERS = { dag_id: "DAG", model_id: "Model", agent_id: "Agent", outcome: "Outcome" };
export const SORTS = ["-run_after", "run_after", "-credits", "credits"] as const;
export const PAGE_SIZE = 50;

export type Period = keyof typeof PERIODS;
export type Group = keyof typeof GROUPS;
export type Filter = keyof typeof FILTERS;
export type Sort = (typeof SORTS)[number];

export interface State {
  period: Period | null; // null: from and to apply
  from: string; // the first and the last day, in UTC
  to: string;
  filters: Record<Filter, string[]>;
  group: Group;
  sort: Sort;
  page: number; // counts from 1
}

const DEFAULTS = { period: "30d", group: "asset", sort: "-run_after", page: "1" };
const DAY = 86_400_000;

const isDay = (text: string | null): text is string => /^\d{4}-\d\d-\d\d$/.test(text ?? "") && !Number.isNaN(Date.parse(text!));
const toDay = (time: number) => new Date(time).toISOString().slice(0, 10);
export const addDays = (day: string, count: number) => toDay(Date.parse(day) + count * DAY);

/** Read the state from the address: what is not valid there counts as not given. */
export function readState(params: URLSearchParams, now: Date): State {
  const choose = <T extends string>(name: "period" | "group" | "sort", values: readonly string[]) =>
    (values.includes(params.get(name)!) ? params.get(name) : DEFAULTS[name]) as T;
  const [from, to] = [params.get("from"), params.get("to")];
  const hasDays = isDay(from) && isDay(to);
  const period = choose<Period>("period", Object.keys(PERIODS));
  const today = toDay(now.getTime());
  // 30 days are today and the 29 days before it; 24 hours reach into the day before.
  const first = addDays(today, period === "24h" ? -1 : 1 - parseInt(period));
  return {
    period: hasDays ? null : period,
    from: hasDays ? from : first,
    to: hasDays ? to : today,
    filters: Object.fromEntries(Object.keys(FILTERS).map((name) => [name, params.getAll(name)])) as State["filters"],
    group: choose<Group>("group", Object.keys(GROUPS)),
    sort: choose<Sort>("sort", SORTS),
    page: Math.max(1, Math.trunc(Number(params.get("page"))) || 1),
  };
}

export type Change = Partial<Record<Filter, string[]> & Record<"period" | "from" | "to" | "group" | "sort" | "page", string>>;

/** Change the address. Defaults are left out, parameters of Airflow's own remain, and another selection begins at page 1. */
export function changeParams(params: URLSearchParams, change: Change): URLSearchParams {
  const changed = new URLSearchParams(params);
  if (Object.keys(change).join() !== "group") changed.delete("page");
  if (change.period) ["from", "to"].forEach((name) => changed.delete(name));
  if (change.from) changed.delete("period");
  for (const [name, value] of Object.entries(change)) {
    changed.delete(name);
    if (Array.isArray(value)) value.forEach((item) => changed.append(name, item));
    else if (value !== DEFAULTS[name as keyof typeof DEFAULTS]) changed.set(name, value);
  }
  return changed;
}

/** The query of the API; a DAG's tab is about this DAG alone. */
export function apiQuery(state: State, dagId: string | undefined, now: Date): URLSearchParams {
  const query = new URLSearchParams();
  if (state.period === "24h") query.set("start", new Date(now.getTime() - DAY).toISOString().slice(0, 16) + "Z");
  else query.set("start", state.from);
  if (!state.period) query.set("end", addDays(state.to, 1));
  for (const [name, values] of Object.entries(state.filters)) {
    (name === "dag_id" && dagId !== undefined ? [dagId] : values).forEach((value) => query.append(name, value));
  }
  query.set("group", state.group);
  query.set("sort", state.sort);
  query.set("limit", String(PAGE_SIZE));
  query.set("offset", String((state.page - 1) * PAGE_SIZE));
  return query;
}

export function csvQuery(query: URLSearchParams): URLSearchParams {
  const rest = new URLSearchParams(query);
  ["group", "limit", "offset"].forEach((name) => rest.delete(name));
  return rest;
}
