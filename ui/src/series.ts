// From the days of an answer to the series of a chart.
import { addDays } from "./query";

export interface Series {
  key: string;
  values: (string | undefined)[]; // one per day; a decimal string
}

/** Every day from start to end (exclusive), in UTC. In more than a year, days before the first run are left out. */
export function listDays(start: string, end: string, firstDay: string | undefined): string[] {
  const last = new Date(Date.parse(end) - 1).toISOString().slice(0, 10);
  let day = new Date(start).toISOString().slice(0, 10);
  if (addDays(day, 366) <= last && firstDay && firstDay > day) day = firstDay;
  const days = [];
  for (; day <= last; day = addDays(day, 1)) days.push(day);
  return days;
}

/** One series per key, the largest first and "other" last. */
export function toSeries(days: string[], valuesByDay: Map<string, Record<string, string>>): Series[] {
  const keys = new Set([...valuesByDay.values()].flatMap((values) => Object.keys(values)));
  const series = [...keys].map((key) => ({ key, values: days.map((day) => valuesByDay.get(day)?.[key]) }));
  const size = ({ key, values }: Series) =>
    key === "other" ? -1 : values.reduce((sum, value) => sum + Number(value ?? 0), 0);
  return series.sort((one, two) => size(two) - size(one) || one.key.localeCompare(two.key, "en"));
}
