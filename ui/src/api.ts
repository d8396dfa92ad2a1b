// The API of the page: what it answers, and what to do when it does not.
import { useCallback, useEffect, useState } from "react";
import type { AssetFields, Batch } from "./format";
import { apiQuery, readState } from "./query";

interface TaskFields extends AssetFields {
  dag_id: string;
  task_id: string;
  credits: string;
}

export interface RunFields extends TaskFields {
  run_id: string;
  map_index: number;
  page: string;
}

export type TaskRow = TaskFields & { runs: number };
export type BatchRow = RunFields & { batch: Batch };
export type Outcomes = Record<string, number>;
export interface RunRow extends RunFields {
  run_after: string;
  tokens: number;
  run_time: number | null;
  wait_time: number | null;
  outcomes: Outcomes;
}

export interface Duration {
  median: number | null;
  p95: number | null;
  count: number;
}

export interface Usage {
  start: string;
  end: string;
  is_complete: boolean;
  days_left: number;
  totals: { credits: string; runs: number; tasks: number; tokens: number; outcomes: Outcomes };
  days: { day: string; credits: Record<string, string> }[];
  outcomes_by_day: { day: string; outcomes: Outcomes }[];
  durations: { run_time: Duration; wait_time: Duration };
  tasks: TaskRow[];
  batches: BatchRow[];
  runs: RunRow[];
  total_runs_rows: number;
  filters: { dag_ids: string[]; model_ids: string[]; agent_ids: string[]; outcomes: string[] };
}

/** What went wrong, and what helps: log in again, restart the API server, change the query, or retry. */
export class ApiError extends Error {
  constructor(
    readonly remedy: "login" | "restart" | "change" | "retry",
    message: string,
  ) {
    super(message);
  }
}

/** The address of a path of the API, also where Airflow has a base path. */
export function apiUrl(path: string, query: URLSearchParams): string {
  return new URL(`aixplain/api/${path}?${query}`, document.baseURI).href;
}

/** Judge an answer that is not the expected JSON object; return undefined for one that is. */
export function judgeAnswer(status: number, isJson: boolean, isRedirected: boolean, body: unknown): ApiError | undefined {
  const detail = (body as { detail?: unknown } | undefined)?.detail;
  const text = typeof detail === "string" ? detail : `The API server answered with HTTP ${status}`;
  if (status === 401 || (isRedirected && !isJson)) return new ApiError("login", text);
  if (status === 404 || (status < 400 && !isJson)) return new ApiError("restart", text);
  if (status >= 500 || status === 429) return new ApiError("retry", text);
  if (status >= 400) return new ApiError("change", text);
  return undefined;
}

async function fetchUsage(query: URLSearchParams, signal: AbortSignal): Promise<Usage> {
  const failed = (error: unknown) => {
    throw signal.aborted ? error : new ApiError("retry", `The API server did not answer: ${(error as Error).message}`);
  };
  const response = await fetch(apiUrl("usage", query), { credentials: "include", signal }).catch(failed);
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  const body: unknown = isJson ? await response.json().catch(failed) : undefined;
  const error = judgeAnswer(response.status, isJson, response.redirected, body);
  if (error) throw error;
  return body as Usage;
}

// Milliseconds. While days are being counted, each request counts some of them.
const [REFRESH_INTERVAL, COUNTING_INTERVAL] = [10_000, 1000];

interface Answer {
  data?: Usage;
  error?: ApiError;
  isLoading: boolean;
}

/** Load what the address selects, and again while batches are in progress or days are being counted. */
export function useUsage(search: string, dagId: string | undefined): Answer & { retry: () => void } {
  const [answer, setAnswer] = useState<Answer>({ isLoading: true });
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const refreshLater = (interval = REFRESH_INTERVAL) => {
      timer = setTimeout(() => (document.hidden ? refreshLater(interval) : void load(true)), interval);
    };
    const load = async (isRefresh: boolean) => {
      const now = new Date();
      const query = apiQuery(readState(new URLSearchParams(search), now), dagId, now);
      try {
        const data = await fetchUsage(query, controller.signal);
        setAnswer({ data, isLoading: false });
        if (!data.is_complete) refreshLater(COUNTING_INTERVAL);
        else if (data.batches.length) refreshLater();
      } catch (error) {
        if (controller.signal.aborted) return;
        const known = error instanceof ApiError ? error : new ApiError("retry", String(error));
        setAnswer(({ data }) => ({ data: isRefresh ? data : undefined, error: known, isLoading: false }));
        if (isRefresh && known.remedy === "retry") refreshLater();
      }
    };
    setAnswer(({ data }) => ({ data, isLoading: true }));
    void load(false);
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [search, dagId, attempt]);
  return { ...answer, retry: useCallback(() => setAttempt((count) => count + 1), []) };
}
