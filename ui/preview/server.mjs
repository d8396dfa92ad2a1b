// Shows the built page without Airflow, on invented data: npm run preview, then open the address that it prints.
// Parameters of the page's address: dark; bare (without Airflow's router); case=empty, login, missing, broken, refused, slow or one (one run).
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";

const PORT = Number(process.env.PORT ?? 8090);
const DAY = 86_400_000;
const host = await build({ entryPoints: ["preview/host.tsx"], bundle: true, format: "esm", jsx: "automatic", write: false });

const MODELS = ["sentiment", "translation-en-de", "6646261c6eb563165658bbb1", "speech-recognition-multilingual-large-v3-turbo-2026-09-30-preview", "summary", "", "ocr", "llm-large", "llm-small", "classifier", "embeddings"];
const AGENTS = ["research-agent", "0a8f-support"];
const OUTCOMES = ["success", "success", "success", "success", "success", "success", "success", "success", "failed", "timeout", "error", "refused", "orphaned", "submitted"];
const DAGS = Array.from({ length: 50 }, (_, n) => (n % 7 ? `dag_${n}_daily` : `customer_feedback__ingest_and_enrich__region_${n}__very_long_name`));
const hash = (n) => ((Math.imul(n + 1, 2654435761) >>> 0) % 10007) / 10007;

function run(n, count, start, end) {
  const agent = n % 9 === 4 && AGENTS[n % 2];
  const asset = agent ? { agent_id: agent } : { model_id: MODELS[Math.floor(hash(n) ** 2 * MODELS.length)] };
  const page = agent || !asset.model_id ? "" : `https://platform.aixplain.com/discover/model/${asset.model_id}`;
  const time = start + (end - start) * hash(n * 7);
  const micros = Math.floor(hash(n * 13) ** 3 * 900_000);
  return {
    dag_id: DAGS[Math.floor(hash(n * 3) ** 2 * DAGS.length)],
    run_id: `scheduled__${new Date(time).toISOString()}`,
    task_id: n % 5 ? `classify_${n % 4}` : "group.translate_the_reviews_of_all_products",
    map_index: n % 6 ? -1 : n % 17,
    run_after: new Date(time).toISOString(),
    ...asset, page, micros, credits: `0.${String(micros).padStart(6, "0")}07`,
    tokens: n % 3 ? n * 7 : 0,
    run_time: n % 8 ? 0.4 + 20 * hash(n * 5) : null, wait_time: n % 8 ? 1 + 40 * hash(n * 5) : null,
    outcomes: n % 11 ? { [OUTCOMES[Math.floor(hash(n * 17) * 14)]]: 1 } : { success: 1, failed: 2 },
  };
}

const decimal = (micros) => `${Math.floor(micros / 1e6)}.${String(micros % 1e6).padStart(6, "0")}`;
const nameOf = (row) => row.agent_id === undefined ? `model:${row.model_id}` : `agent:${row.agent_id}`;
const KEYS = { asset: nameOf, dag: ({ dag_id }) => `dag:${dag_id}`, kind: (row) => `kind:${nameOf(row).split(":")[0]}` };
function groupBy(rows, keyOf) {
  const groups = new Map();
  for (const row of rows) groups.get(keyOf(row))?.push(row) ?? groups.set(keyOf(row), [row]);
  return groups;
}
const cost = (rows) => rows.reduce((sum, { micros }) => sum + micros, 0);
const count = (rows) => rows.reduce((sum, { outcomes }) => {
  for (const [name, n] of Object.entries(outcomes)) sum[name] = (sum[name] ?? 0) + n;
  return sum;
}, {});

function usage(query, kind) {
  const end = query.has("end") ? Date.parse(query.get("end")) : Date.now();
  const start = Date.parse(query.get("start"));
  const size = kind === "empty" ? 0 : kind === "one" ? 1 : Math.max(9, Math.floor((end - start) / DAY * 30));
  const all = Array.from({ length: size }, (_, n) => run(n, size, start, end));
  const has = (name, value) => !query.has(name) || query.getAll(name).includes(value);
  const rows = all.filter((row) => has("dag_id", row.dag_id) && (!query.has("model_id") && !query.has("agent_id")
    || query.getAll("model_id").includes(row.model_id) || query.getAll("agent_id").includes(row.agent_id))
    && (!query.has("outcome") || query.getAll("outcome").some((name) => row.outcomes[name])));
  const keyOf = KEYS[query.get("group")];
  const largest = [...groupBy(rows, keyOf)].sort((one, two) => cost(two[1]) - cost(one[1])).slice(0, 9).map(([key]) => key);
  const byDay = [...groupBy(rows, ({ run_after }) => run_after.slice(0, 10))].sort();
  const sort = query.get("sort");
  const value = (row) => (sort.endsWith("credits") ? row.micros : Date.parse(row.run_after)) * (sort.startsWith("-") ? -1 : 1);
  const [offset, limit] = [Number(query.get("offset")), Number(query.get("limit"))];
  const now = Date.now();
  const batch = (rows, done, failed, minutes) => ({ rows, done, failed, in_flight: 100, is_finished: false, started_at: new Date(now - minutes * 60_000).toISOString(), updated_at: new Date(now).toISOString() });
  const distinct = (values) => [...new Set(values.filter(Boolean))].sort();
  return {
    start: new Date(start).toISOString(), end: new Date(end).toISOString(),
    is_complete: kind !== "partial", days_left: kind === "partial" ? 212 : 0,
    totals: { credits: decimal(cost(rows)) + "0007", runs: Object.values(count(rows)).reduce((a, b) => a + b, 0), tasks: rows.length, tokens: rows.reduce((sum, { tokens }) => sum + tokens, 0), outcomes: count(rows) },
    days: byDay.map(([day, group]) => ({ day, credits: Object.fromEntries([...groupBy(group, (row) => largest.includes(keyOf(row)) ? keyOf(row) : "other")].map(([key, part]) => [key, decimal(cost(part))])) })),
    outcomes_by_day: byDay.map(([day, group]) => ({ day, outcomes: count(group) })),
    durations: rows.length ? { run_time: { median: 3.2, p95: 9.87, count: 480 }, wait_time: { median: 5.1, p95: 75.4, count: 480 } } : { run_time: { median: null, p95: null, count: 0 }, wait_time: { median: null, p95: null, count: 0 } },
    tasks: [...groupBy(rows, (row) => `${row.dag_id} ${row.task_id}`).values()].sort((one, two) => cost(two) - cost(one)).slice(0, 10).map((group) => ({ ...group[0], credits: decimal(cost(group)), runs: group.length })),
    batches: kind || rows.length === 0 ? [] : [
      { ...rows[1], credits: "12.34567891234", batch: batch(1_000_000, 412_345, 312, 95) }, { ...rows[4], credits: "0.0000123", batch: batch(1000, 0, 0, 0.2) }],
    runs: rows.sort((one, two) => value(one) - value(two)).slice(offset, offset + limit), total_runs_rows: rows.length,
    filters: { dag_ids: distinct(all.map(({ dag_id }) => dag_id)), model_ids: distinct(all.map(({ model_id }) => model_id)), agent_ids: distinct(all.map(({ agent_id }) => agent_id)), outcomes: Object.keys(count(all)).sort() },
  };
}

const FAILURES = {
  login: [401, "application/json", '{"detail": "Not authenticated"}'], missing: [200, "text/html", "<!doctype html>"],
  broken: [500, "text/plain", "Internal Server Error"], refused: [422, "application/json", '{"detail": "end must be later than start: choose a later end"}'],
};
createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const send = (status, type, body) => response.writeHead(status, { "Content-Type": type }).end(body);
  const kind = new URL(request.headers.referer ?? "http://localhost").searchParams.get("case");
  if (pathname === "/airflow/host.js") return send(200, "text/javascript", host.outputFiles[0].text);
  if (pathname.startsWith("/airflow/aixplain/static/")) return send(200, "text/javascript", readFileSync("../airflow_provider_aixplain/ui/static/aixplain.js"));
  if (pathname !== "/airflow/aixplain/api/usage") return send(200, "text/html", readFileSync("preview/index.html"));
  if (FAILURES[kind]) return send(...FAILURES[kind]);
  if (kind === "slow") await new Promise((resolve) => setTimeout(resolve, 5000));
  return send(200, "application/json", JSON.stringify(usage(searchParams, kind)));
}).listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}/airflow/plugin/aixplain`));
