// The page "aiXplain": what runs cost, in the navigation for all DAGs and as the tab of one DAG.
import { useEffect, useMemo } from "react";
import { type ApiError, type Usage, apiUrl, useUsage } from "./api";
import { StackedBars } from "./chart";
import { Choice, Filters, PeriodSelector, noFilters } from "./controls";
import { formatCount, formatCredits, seriesName, sumCredits } from "./format";
import { type Change, GROUPS, type State, apiQuery, changeParams, csvQuery, readState } from "./query";
import { useSearchParams } from "./router";
import { Batches, Durations, ExpensiveTasks, Runs, Totals } from "./sections";
import { listDays, toSeries } from "./series";
import css from "./styles.css";

const OUTCOMES = ["success", "submitted", "failed", "timeout", "error", "refused", "orphaned"];

let isFirst = true;

/** @param dagId - the DAG of the tab; undefined in the navigation. */
export function Page({ dagId }: { dagId?: string }) {
  const [params, setParams] = useSearchParams();
  const { data, error, isLoading, retry } = useUsage(params.toString(), dagId);
  const now = new Date();
  const state = readState(params, now);
  useEffect(() => {
    // Airflow mounts the page again when the address changes for the first time: let it be now, before a list is open.
    if (isFirst) setParams(params, { replace: true });
    isFirst = false;
  }, []);
  const change = (wanted: Change) => setParams(changeParams(params, wanted));
  const isDagShown = dagId === undefined;
  return (
    <div className="aix" aria-busy={isLoading}>
      <style>{css}</style>
      <div className="aix-row aix-title">
        <h1>aiXplain usage</h1>
        <a className="aix-button" href={apiUrl("usage.csv", csvQuery(apiQuery(state, dagId, now)))}>
          Download CSV
        </a>
      </div>
      <div className="aix-controls">
        <PeriodSelector state={state} change={change} />
        <Filters state={state} change={change} options={data?.filters} hidden={isDagShown ? undefined : "dag_id"} />
      </div>
      <p className="aix-hidden" role="status">
        {isLoading ? "Loading usage" : error ? "Usage could not be loaded" : "Usage loaded"}
      </p>
      {error && <Failure error={error} retry={retry} />}
      {data && !data.is_complete && (
        <p className="aix-notice">
          Older days are still being counted{data.days_left > 0 && `, ${formatCount(data.days_left)} to go`}. Figures grow until then.
        </p>
      )}
      {data ? (
        <div className={isLoading ? "aix-body aix-stale" : "aix-body"}>
          <Results usage={data} state={state} change={change} isDagShown={isDagShown} />
        </div>
      ) : (
        !error && <Skeleton />
      )}
    </div>
  );
}

interface ResultsProps {
  usage: Usage;
  state: State;
  change: (change: Change) => void;
  isDagShown: boolean;
}

function Results({ usage, state, change, isDagShown }: ResultsProps) {
  const { start, end, days, outcomes_by_day, totals, batches, durations, tasks } = usage;
  const charts = useMemo(() => {
    const firstDay = [...days, ...outcomes_by_day].map(({ day }) => day).sort()[0];
    const shown = listDays(start, end, firstDay);
    const counts = outcomes_by_day.map(({ day, outcomes }) => {
      return [day, Object.fromEntries(Object.entries(outcomes).map(([name, count]) => [name, String(count)]))] as const;
    });
    const outcomes = toSeries(shown, new Map(counts));
    return {
      days: shown,
      credits: toSeries(shown, new Map(days.map(({ day, credits }) => [day, credits]))),
      outcomes: outcomes.sort((one, two) => OUTCOMES.indexOf(one.key) - OUTCOMES.indexOf(two.key)),
    };
  }, [usage]);
  if (!totals.runs && !batches.length) {
    return usage.is_complete ? <Empty state={state} change={change} isDagShown={isDagShown} /> : <Skeleton />;
  }
  const groups = isDagShown ? GROUPS : { asset: GROUPS.asset, kind: GROUPS.kind };
  return (
    <>
      <Totals totals={totals} />
      {batches.length > 0 && <Batches batches={batches} isDagShown={isDagShown} />}
      <div className="aix-pair">
        <StackedBars
          title="Credits per day"
          days={charts.days}
          series={charts.credits}
          nameOf={seriesName}
          colorOf={(key, index) => (key === "other" ? "--aix-other" : `--aix-series-${index % 9}`)}
          format={formatCredits}
          sum={sumCredits}
          controls={<Choice label="Stack by" choices={groups} value={state.group} onChange={(group) => change({ group })} />}
        />
        <StackedBars
          title="Runs per day"
          days={charts.days}
          series={charts.outcomes}
          nameOf={(key) => key}
          colorOf={(key) => `--aix-${key}`}
          isCount
          format={formatCredits}
          sum={sumCredits}
        />
      </div>
      <Durations durations={durations} />
      <ExpensiveTasks tasks={tasks} isDagShown={isDagShown} />
      <Runs usage={usage} state={state} change={change} isDagShown={isDagShown} />
    </>
  );
}

function Empty({ state, change, isDagShown }: Omit<ResultsProps, "usage">) {
  const hasFilters = Object.entries(state.filters).some(([name, values]) => values.length && (isDagShown || name !== "dag_id"));
  return (
    <section className="aix-card aix-message">
      <h2>{hasFilters ? "No run matches the filters in this period" : `No runs${isDagShown ? "" : " of this DAG"} in this period`}</h2>
      <p>
        {hasFilters
          ? "Remove a filter or choose a longer period."
          : "Runs appear here when a task with an aiXplain operator ends, for example AixplainRunModelOperator. Choose a longer period to see older runs."}
      </p>
      <div className="aix-row">
        {hasFilters && (
          <button type="button" onClick={() => change(noFilters())}>
            Clear all filters
          </button>
        )}
        {state.period !== "365d" && (
          <button type="button" onClick={() => change({ period: "365d" })}>
            Show 1 year
          </button>
        )}
      </div>
    </section>
  );
}

const FAILURES = {
  login: ["You are not logged in", "Your session has expired or was closed. Reload the page to log in again."],
  restart: [
    "The API server does not have this page's API",
    "The provider was probably installed or updated after the API server started. Restart the API server, then reload the page.",
  ],
  change: ["The selection cannot be shown", "Change the period or the filters."],
  retry: ["Usage could not be loaded", "Retry; if it fails again, look at the API server's log."],
} as const;

function Failure({ error, retry }: { error: ApiError; retry: () => void }) {
  const [title, help] = FAILURES[error.remedy];
  return (
    <section className="aix-card aix-message aix-error" role="alert">
      <h2>{title}</h2>
      <p>{help}</p>
      <p className="aix-muted">{error.message}</p>
      <div className="aix-row">
        {error.remedy === "retry" && (
          <button type="button" onClick={retry}>
            Retry
          </button>
        )}
        {(error.remedy === "login" || error.remedy === "restart") && (
          <a className="aix-button" href={location.href}>
            Reload the page
          </a>
        )}
      </div>
    </section>
  );
}

function Skeleton() {
  return (
    <div className="aix-body aix-skeleton" aria-hidden>
      <div className="aix-tiles">{[1, 2, 3, 4].map((tile) => <div key={tile} className="aix-card" />)}</div>
      {[1, 2].map((row) => (
        <div key={row} className="aix-pair">
          <div className="aix-card" />
          <div className="aix-card" />
        </div>
      ))}
    </div>
  );
}
