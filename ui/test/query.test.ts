import assert from "node:assert/strict";
import { test } from "node:test";
import { judgeAnswer } from "../src/api";
import { apiQuery, changeParams, csvQuery, readState } from "../src/query";
import { listDays, toSeries } from "../src/series";

const NOW = new Date("2026-11-26T20:15:30Z");
const read = (search: string) => readState(new URLSearchParams(search), NOW);
const query = (search: string, dagId?: string) => String(apiQuery(read(search), dagId, NOW));
const change = (search: string, wanted: Parameters<typeof changeParams>[1]) => String(changeParams(new URLSearchParams(search), wanted));

test("an empty address selects the last 30 days", () => {
  assert.equal(query(""), "start=2026-10-28&group=asset&sort=-run_after&limit=50&offset=0");
});

test("values that are not valid count as not given", () => {
  assert.deepEqual(read("period=9y&group=x&sort=y&page=-3&from=2026-11-31&to=x"), read(""));
});

test("the last day of a selection is part of it", () => {
  assert.match(query("from=2026-02-01&to=2026-02-28"), /^start=2026-02-01&end=2026-03-01&/);
});

test("24 hours are counted to the minute", () => {
  assert.match(query("period=24h"), /^start=2026-11-25T20%3A15Z&/);
});

test("all that is in the address reaches the API", () => {
  const search = "dag_id=a&dag_id=b&model_id=m&agent_id=g&outcome=failed&group=dag&sort=-credits&page=3";
  assert.ok(query(search).endsWith("dag_id=a&dag_id=b&model_id=m&agent_id=g&outcome=failed&group=dag&sort=-credits&limit=50&offset=100"));
});

test("a DAG's tab asks for this DAG alone", () => {
  assert.match(query("dag_id=a", "tab"), /&dag_id=tab&group/);
});

test("the CSV has the same selection without pages", () => {
  const rest = csvQuery(apiQuery(read("dag_id=a&page=3"), undefined, NOW));
  assert.equal(String(rest), "start=2026-10-28&dag_id=a&sort=-run_after");
});

test("a change begins at page 1 and keeps the rest", () => {
  assert.equal(change("theirs=1&sort=credits&page=4", { dag_id: ["x", "y"] }), "theirs=1&sort=credits&dag_id=x&dag_id=y");
  assert.equal(change("page=4", { page: "5" }), "page=5");
  assert.equal(change("page=4", { group: "dag" }), "page=4&group=dag");
});

test("defaults are not written into the address", () => {
  assert.equal(change("period=7d&group=dag", { period: "30d", group: "asset" }), "");
  assert.equal(change("page=2", { page: "1" }), "");
});

test("days replace a period, and a period days", () => {
  assert.equal(change("period=7d", { from: "2026-01-01", to: "2026-01-02" }), "from=2026-01-01&to=2026-01-02");
  assert.equal(change("from=2026-01-01&to=2026-01-02", { period: "7d" }), "period=7d");
});

test("days without runs are part of a chart", () => {
  assert.deepEqual(listDays("2026-02-27T00:00:00Z", "2026-03-02T00:00:00Z", undefined), ["2026-02-27", "2026-02-28", "2026-03-01"]);
  assert.deepEqual(listDays("2026-11-25T20:15:00Z", "2026-11-26T20:15:30Z", undefined), ["2026-11-25", "2026-11-26"]);
});

test("years before the first run are no part of a chart", () => {
  assert.deepEqual(listDays("2020-01-01", "2026-11-26", "2026-11-24"), ["2026-11-24", "2026-11-25"]);
});

test("the largest series comes first and other last", () => {
  const days = ["2026-11-25", "2026-11-26"];
  const values = new Map([["2026-11-26", { other: "9", "dag:a": "1", "dag:b": "2.50" }]]);
  assert.deepEqual(toSeries(days, values), [
    { key: "dag:b", values: [undefined, "2.50"] },
    { key: "dag:a", values: [undefined, "1"] },
    { key: "other", values: [undefined, "9"] },
  ]);
});

test("each failure has its remedy", () => {
  const remedy = (...answer: Parameters<typeof judgeAnswer>) => judgeAnswer(...answer)?.remedy;
  assert.equal(remedy(401, true, false, { detail: "Not authenticated" }), "login");
  assert.equal(remedy(200, false, true, undefined), "login"); // redirected to a login page
  assert.equal(remedy(404, true, false, { detail: "Not Found" }), "restart");
  assert.equal(remedy(200, false, false, undefined), "restart"); // Airflow's own page answers unknown addresses
  assert.equal(remedy(502, false, false, undefined), "retry");
  assert.equal(remedy(422, true, false, { detail: "start must be a date" }), "change");
  assert.equal(remedy(200, true, false, {}), undefined);
  assert.equal(judgeAnswer(422, true, false, { detail: "start must be a date" })?.message, "start must be a date");
});
