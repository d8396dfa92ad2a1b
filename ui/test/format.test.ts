import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../src/format";

test("credits keep six significant decimals, and no digit is rounded", () => {
  const shown = {
    "12.3456": "12.3456",
    "1234567.1234569": "1,234,567.123456",
    "0.00000012345678": "0.000000123456",
    "12.9999999": "12.999999",
    "1.500": "1.5",
    "100": "100",
    "0": "0",
    "0.000": "0",
    "-1234.5": "-1,234.5",
    "1E-7": "1E-7",
  };
  for (const [value, text] of Object.entries(shown)) assert.equal(format.formatCredits(value), text);
});

test("sums of credits are exact", () => {
  assert.equal(format.sumCredits(["0.1", "0.2"]), "0.3");
  assert.equal(format.sumCredits(["9007199254740993", "0.000000000000000001"]), "9007199254740993.000000000000000001");
  assert.equal(format.sumCredits(["0.5", "9.5", "90"]), "100");
  assert.equal(format.sumCredits(["100"]), "100");
  assert.equal(format.sumCredits(["1E-7", "2.5e+3"]), "2500.0000001");
  assert.equal(format.sumCredits([]), "0");
});

test("durations have at most two units", () => {
  const shown = new Map([[null, "–"], [0, "0 s"], [0.1234, "0.12 s"], [9.87, "9.9 s"], [75.4, "1 min 15 s"], [120, "2 min"], [7265, "2 h 1 min"], [90000, "1 d 1 h"]]);
  for (const [value, text] of shown) assert.equal(format.formatSeconds(value), text);
});

test("times are in UTC", () => {
  assert.equal(format.formatTime("2026-11-26T01:30:59+02:00"), "2026-11-25 23:30");
  assert.equal(format.formatTime("never"), "never");
});

test("a share of nothing is not a number to show", () => {
  assert.equal(format.formatShare(1, 3), "33.3 %");
  assert.equal(format.formatShare(0, 0), "–");
});

test("names of series distinguish agents and unknown assets", () => {
  const names = { "model:a:b": "a:b", "model:": "Unknown model", "agent:x": "x (agent)", "dag:d": "d", "kind:model": "Model", other: "Other" };
  for (const [key, name] of Object.entries(names)) assert.equal(format.seriesName(key), name);
});

test("a long id loses its middle", () => {
  assert.equal(format.shorten("a".repeat(36)), "a".repeat(36));
  assert.equal(format.shorten(`begin${"-".repeat(99)}end`, 10), "begin…-end");
});

test("only web addresses become links", () => {
  assert.equal(format.webUrl("https://platform.aixplain.com/x"), "https://platform.aixplain.com/x");
  for (const address of ["javascript:alert(1)", "", "//host/x", "http://", " https://x"]) assert.equal(format.webUrl(address), undefined);
});

test("a batch's time left follows from its rate since it began", () => {
  const batch = { rows: 1000, done: 400, failed: 3, in_flight: 9, started_at: "2026-11-26T10:00:00Z", updated_at: "2026-11-26T10:03:20Z" };
  assert.deepEqual(format.estimateBatch(batch), { rate: 2, left: 300 });
  assert.deepEqual(format.estimateBatch({ ...batch, done: 0 }), { rate: null, left: null });
  assert.deepEqual(format.estimateBatch({ ...batch, updated_at: batch.started_at }), { rate: null, left: null });
});

test("rates choose a unit that keeps them above one", () => {
  assert.equal(format.formatRate(72.35), "72.4 rows/s");
  assert.equal(format.formatRate(0.5), "30 rows/min");
  assert.equal(format.formatRate(0.001), "3.6 rows/h");
  assert.equal(format.formatRate(null), "–");
});
