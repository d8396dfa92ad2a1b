// How numbers, times and names read on the page. Credits are decimal strings, and stay so: a sum is exact.

const SHOWN_DECIMALS = 6;

/** Credits with thousands separators and at most six significant decimals; the rest is cut off. */
export function formatCredits(value: string): string {
  const parts = /^(-?)(\d+)(?:\.(\d+))?$/.exec(value);
  if (!parts) return value;
  const [, sign = "", whole = "", decimals = ""] = parts;
  const zeros = /^0*$/.test(whole) ? /^0*/.exec(decimals)![0].length : 0;
  const shown = decimals.slice(0, zeros + SHOWN_DECIMALS).replace(/0+$/, "");
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (shown && `.${shown}`);
}

/** The exact sum of decimal strings. */
export function sumCredits(values: string[]): string {
  const numbers = values.map((value) => {
    const [, whole = "0", decimals = "", exponent = "0"] = /^(-?\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(value) ?? [];
    return { digits: BigInt(whole + decimals), scale: decimals.length - Number(exponent) };
  });
  const scale = Math.max(0, ...numbers.map((number) => number.scale));
  const sum = numbers.reduce((total, number) => total + number.digits * 10n ** BigInt(scale - number.scale), 0n);
  const digits = String(sum).padStart(scale + 1, "0");
  return scale ? `${digits.slice(0, -scale)}.${digits.slice(-scale)}`.replace(/\.?0+$/, "") : digits;
}

export function formatCount(value: number): string {
  return value.toLocaleString("en");
}

export function formatShare(part: number, whole: number): string {
  return whole ? `${((100 * part) / whole).toLocaleString("en", { maximumFractionDigits: 1 })} %` : "–";
}

/** A duration, with at most two units. */
export function formatSeconds(value: number | null): string {
  if (value === null) return "–";
  if (value < 1) return `${Number(value.toPrecision(2))} s`;
  if (value < 60) return `${Number(value.toFixed(1))} s`;
  const seconds = Math.round(value);
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ] as const;
  const first = units.findIndex(([size]) => seconds >= size);
  const texts = units.slice(first, first + 2).map(([size, name], index) => {
    const rest = index ? seconds % units[first]![0] : seconds;
    return [Math.floor(rest / size), name] as const;
  });
  return texts.filter(([count]) => count).map(([count, name]) => `${count} ${name}`).join(" ");
}

/** Date and minute of a timestamp, in UTC as the days of the charts. */
export function formatTime(iso: string): string {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? iso : time.toISOString().slice(0, 16).replace("T", " ");
}

export interface AssetFields {
  model_id?: string;
  agent_id?: string;
}

export function assetName({ model_id, agent_id }: AssetFields): string {
  if (agent_id !== undefined) return agent_id ? `${agent_id} (agent)` : "Unknown agent";
  return model_id || "Unknown model";
}

/** The name of what a part of a day's credits was spent on: ``model:ID``, ``dag:ID``, ``kind:model`` or ``other``. */
export function seriesName(key: string): string {
  const [, kind, id = ""] = /^(\w+):(.*)$/s.exec(key) ?? [];
  if (kind === "model" || kind === "agent") return assetName({ [`${kind}_id`]: id });
  if (kind === "dag") return id;
  const name = kind ? id : key;
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** A long id with its middle left out. */
export function shorten(text: string, length = 36): string {
  return text.length <= length ? text : `${text.slice(0, length / 2)}…${text.slice(1 - length / 2)}`;
}

/** The address, unless it could run a script. */
export function webUrl(address: string): string | undefined {
  return /^https?:\/\//i.test(address) && URL.canParse(address) ? address : undefined;
}

export interface Batch {
  rows: number;
  done: number; // of them "failed" failed
  failed: number;
  in_flight: number;
  started_at: string;
  updated_at: string;
}

/** Rows per second since the batch began, and seconds until it ends at this rate; null while nothing is known. */
export function estimateBatch({ rows, done, started_at, updated_at }: Batch): { rate: number | null; left: number | null } {
  const elapsed = (Date.parse(updated_at) - Date.parse(started_at)) / 1000;
  const rate = done > 0 && elapsed > 0 ? done / elapsed : null;
  return { rate, left: rate && (rows - done) / rate };
}

export function formatRate(perSecond: number | null): string {
  if (perSecond === null) return "–";
  const [rate, unit] = perSecond >= 1 ? [perSecond, "s"] : perSecond * 60 >= 1 ? [perSecond * 60, "min"] : [perSecond * 3600, "h"];
  return `${rate.toLocaleString("en", { maximumSignificantDigits: 3 })} rows/${unit}`;
}
