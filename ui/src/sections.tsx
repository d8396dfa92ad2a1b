// The parts of the page below its filters, except the charts.
import type { ReactNode } from "react";
import type { BatchRow, Duration, Outcomes, RunFields, TaskRow, Usage } from "./api";
import { Card } from "./card";
import {
  assetName,
  estimateBatch,
  formatCount,
  formatCredits,
  formatRate,
  formatSeconds,
  formatShare,
  formatTime,
  webUrl,
} from "./format";
import { type Change, PAGE_SIZE, type Sort, type State } from "./query";
import { Link } from "./router";

const path = (...parts: string[]) => parts.map((part) => `/${encodeURIComponent(part)}`).join("");

function Credits({ value }: { value: string }) {
  return <span title={`${value} credits`}>{formatCredits(value)}</span>;
}

function TaskInstance({ row, isDagShown }: { row: RunFields; isDagShown: boolean }) {
  const { dag_id, run_id, task_id, map_index } = row;
  const isMapped = map_index >= 0;
  const target = path("dags", dag_id, "runs", run_id, "tasks", task_id) + (isMapped ? path("mapped", String(map_index)) : "");
  const name = task_id + (isMapped ? ` [${map_index}]` : "");
  return (
    <div className="aix-task">
      <Link to={target} className="aix-ellipsis" title={name}>
        {name}
      </Link>
      <span className="aix-ellipsis aix-muted" title={`DAG ${dag_id}, run ${run_id}`}>
        {isDagShown ? `${dag_id} · ${run_id}` : run_id}
      </span>
    </div>
  );
}

function Asset({ row }: { row: RunFields }) {
  const [name, url] = [assetName(row), webUrl(row.page)];
  if (!url) return <span className="aix-ellipsis aix-asset" title={name}>{name}</span>;
  return (
    <a className="aix-ellipsis aix-asset" href={url} target="_blank" rel="noopener noreferrer" title={`${name}: open on the platform`}>
      {name} ↗
    </a>
  );
}

export function Totals({ totals: { credits, runs, tasks, tokens, outcomes } }: { totals: Usage["totals"] }) {
  const { success = 0, submitted = 0, ...failures } = outcomes;
  const failed = Object.values(failures).reduce((sum, count) => sum + count, 0);
  const tiles: [string, ReactNode, string][] = [
    ["Credits", <Credits value={credits} />, "of all tries"],
    ["Runs", formatCount(runs), `in ${formatCount(tasks)} task ${tasks === 1 ? "instance" : "instances"}`],
    ["Tokens", formatCount(tokens), "as the platform counts them"],
    ["Failed", formatShare(failed, runs), `${formatCount(failed)} of ${formatCount(runs)} runs did not succeed`],
  ];
  return (
    <dl className="aix-tiles">
      {tiles.map(([name, value, note]) => (
        <div key={name} className="aix-card">
          <dt>{name}</dt>
          <dd className="aix-big">{value}</dd>
          <dd className="aix-muted">{note}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Durations({ durations }: { durations: Usage["durations"] }) {
  const longest = Math.max(...Object.values(durations).map(({ p95 }) => p95 ?? 0)) || 1;
  const rows: [string, string, Duration][] = [
    ["Run time", "as the platform reports it", durations.run_time],
    ["Waiting time", "from submission to the end of the wait", durations.wait_time],
  ];
  return (
    <Card title="Run time and waiting time">
      <div className="aix-durations">
        {rows.map(([name, note, { median, p95, count }]) => (
          <div key={name}>
            <h3>
              {name} <span className="aix-muted">{note}</span>
            </h3>
            <div className="aix-span" aria-hidden>
              <span className="aix-within" style={{ width: `${(100 * (p95 ?? 0)) / longest}%` }} />
              <span className="aix-median" style={{ width: `${(100 * (median ?? 0)) / longest}%` }} />
            </div>
            <dl>
              <dt>
                <span className="aix-swatch aix-median" /> Median
              </dt>
              <dd>{formatSeconds(median)}</dd>
              <dt>
                <span className="aix-swatch aix-within" /> 95 % within
              </dt>
              <dd>{formatSeconds(p95)}</dd>
              <dt>Runs measured</dt>
              <dd>{formatCount(count)}</dd>
            </dl>
          </div>
        ))}
      </div>
    </Card>
  );
}

export function ExpensiveTasks({ tasks, isDagShown }: { tasks: TaskRow[]; isDagShown: boolean }) {
  const most = Number(tasks[0]?.credits) || 1;
  return (
    <Card title="Most expensive tasks">
      <ol className="aix-bars">
        {tasks.map((row) => (
          <li key={`${row.dag_id} ${row.task_id}`}>
            <div className="aix-task">
              <Link to={path("dags", row.dag_id, "tasks", row.task_id)} className="aix-ellipsis" title={row.task_id}>
                {row.task_id}
              </Link>
              <span className="aix-ellipsis aix-muted" title={`${isDagShown ? `DAG ${row.dag_id}, ` : ""}${assetName(row)}`}>
                {isDagShown && `${row.dag_id} · `}
                {assetName(row)}
              </span>
            </div>
            <div className="aix-bar" aria-hidden>
              <span style={{ width: `${(100 * Number(row.credits)) / most}%` }} />
            </div>
            <div className="aix-number">
              <Credits value={row.credits} /> <span className="aix-hidden">credits</span>
              <div className="aix-muted">
                {formatCount(row.runs)} {row.runs === 1 ? "run" : "runs"}
              </div>
            </div>
          </li>
        ))}
      </ol>
    </Card>
  );
}

export function Batches({ batches, isDagShown }: { batches: BatchRow[]; isDagShown: boolean }) {
  return (
    <Card title="Batches in progress">
      <ul className="aix-batches">
        {batches.map((row) => (
          <li key={path(row.dag_id, row.run_id, row.task_id, String(row.map_index))}>
            <TaskInstance row={row} isDagShown={isDagShown} />
            <Asset row={row} />
            <Progress row={row} />
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Progress({ row: { task_id, credits, batch } }: { row: BatchRow }) {
  const { rows, done, failed, in_flight } = batch;
  const { rate, left } = estimateBatch(batch);
  const share = (count: number) => `${(100 * count) / (rows || 1)}%`;
  const facts: [string, ReactNode][] = [
    ["Rate", formatRate(rate)],
    ["Cost so far", <Credits value={credits} />],
    ["Time left", left === null ? "–" : `about ${formatSeconds(left < 60 ? Math.ceil(left) : left)}`],
  ];
  return (
    <>
      <div>
        <div className="aix-progress" role="progressbar" aria-label={task_id} aria-valuemin={0} aria-valuemax={rows} aria-valuenow={done}>
          <span style={{ width: share(done - failed) }} />
          <span className="aix-failed" style={{ width: share(failed) }} />
        </div>
        <span className="aix-muted">
          {formatCount(done)} of {formatCount(rows)} rows, {formatCount(failed)} failed, {formatCount(in_flight)} in flight
        </span>
      </div>
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}

interface RunsProps {
  usage: Usage;
  state: State;
  change: (change: Change) => void;
  isDagShown: boolean;
}

export function Runs({ usage: { runs, total_runs_rows: total }, state, change, isDagShown }: RunsProps) {
  const first = (state.page - 1) * PAGE_SIZE;
  const sortable = (label: string, name: "credits" | "run_after", className?: string) => {
    const isSorted = state.sort.endsWith(name);
    const isDescending = state.sort === `-${name}`;
    const next: Sort = isDescending ? name : `-${name}`;
    return (
      <th scope="col" className={className} aria-sort={isSorted ? (isDescending ? "descending" : "ascending") : "none"}>
        <button type="button" onClick={() => change({ sort: next })}>
          {label}
          <span aria-hidden>{isSorted ? (isDescending ? " ↓" : " ↑") : " ↕"}</span>
        </button>
      </th>
    );
  };
  const pages = (
    <nav className="aix-pages" aria-label="Pages of runs">
      <span className="aix-muted">
        {total ? `${formatCount(first + 1)}–${formatCount(first + runs.length)} of ${formatCount(total)}` : "None"}
      </span>
      <button type="button" disabled={state.page === 1} onClick={() => change({ page: String(state.page - 1) })}>
        Previous
      </button>
      <button type="button" disabled={first + PAGE_SIZE >= total} onClick={() => change({ page: String(state.page + 1) })}>
        Next
      </button>
    </nav>
  );
  return (
    <Card title="Runs" controls={pages}>
      <div className="aix-scroll" tabIndex={0} role="region" aria-label="Runs">
        <table>
          <thead>
            <tr>
              {sortable("Time (UTC)", "run_after")}
              <th scope="col">Task</th>
              <th scope="col">Model or agent</th>
              <th scope="col">Outcome</th>
              {sortable("Credits", "credits", "aix-number")}
              <th scope="col" className="aix-number">Tokens</th>
              <th scope="col" className="aix-number">Run time</th>
              <th scope="col" className="aix-number">Waiting time</th>
            </tr>
          </thead>
          <tbody>
            {runs.map((row) => (
              <tr key={path(row.dag_id, row.run_id, row.task_id, String(row.map_index))}>
                <td className="aix-time" title={row.run_after}>{formatTime(row.run_after)}</td>
                <td>
                  <TaskInstance row={row} isDagShown={isDagShown} />
                </td>
                <td>
                  <Asset row={row} />
                </td>
                <td>
                  <OutcomeList outcomes={row.outcomes} />
                </td>
                <td className="aix-number">
                  <Credits value={row.credits} />
                </td>
                <td className="aix-number">{formatCount(row.tokens)}</td>
                <td className="aix-number">{formatSeconds(row.run_time)}</td>
                <td className="aix-number">{formatSeconds(row.wait_time)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

function OutcomeList({ outcomes }: { outcomes: Outcomes }) {
  return (
    <>
      {Object.entries(outcomes).map(([name, count]) => (
        <span key={name} className="aix-outcome">
          <span className="aix-swatch" style={{ background: `var(--aix-${name})` }} />
          {name}
          {count > 1 && ` ${formatCount(count)}`}
        </span>
      ))}
    </>
  );
}
