"""Fails on words and names that readers of technical English would not expect: ``python -m tests.style``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKED = ("airflow_provider_aixplain", "tests", "docs", "ui/src", "ui/test", "ui/preview")
PAGES = ("Makefile", "README.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml", ".ci/run")
SUFFIXES = (".py", ".html", ".md", ".ts", ".tsx", ".mjs", ".css")
EXEMPT = ("airflow_provider_aixplain/example_dags/data", "tests/style.py", "tests/unit/test_style.py")

WORDS = {
    "told|tells?|telling": "report, log, return, state",
    "heeds?|heeded": "apply",
    "hears?|heard": "receive, refresh",
    "news": "new records, progress",
    "whoever": "the process, the new owner, the user",
    "mends?|mended|mending": "fix",
    "(stands?|stood|standing) still": "is frozen",
    "of no use": "not resumable, without effect",
    "lets? go|letting go": "release",
    "(gives?|gave|given|giving) back": "free, release, return",
    "(go(es)?|going|gone|went) on with": "resume, continue",
    "anew": "again",
    "meanwhile": "rewrite the sentence",
    "perhaps": "rewrite the sentence",
    "such as are": "rewrite the sentence",
    r"as it is(?=\s*([,.;:)]|$))": "unchanged; of a mode: default",
}

NAMES = {
    "patience|patiently": "retry_with_budget",
    "COUNTED": "MAX_CHARGED_PER_FAILURE",
    "UNKNOWN_(POLLS|PAUSE)": "NOT_FOUND_ATTEMPTS, NOT_FOUND_DELAY",
    "LAG": "IN_FLIGHT_MARGIN",
    "MOST_PUSHES": "MAX_PENDING_PUSHES",
    "SubmissionRecord|TriggerRecord": "TaskStateIdempotencyStore, XComIdempotencyStore",
    "TriggeredSubmission": "IdempotencyRecord",
    "_counted": "_push_slots",
    "_(answered|conclude|remember)": "_await_in_flight_submission, _record_in_flight_outcome, _record_outcome",
    "_(asked|kept|connected|arriving|Until)": "_parse_target, _acquire_idle, _within_deadline, _iter_body",
    "_(hear|settle|renew|Reading)": "_refresh, _await_in_doubt, reload_credentials, InputScan",
    "told_(cost|as_airflow_errors)": "format_cost, translate_protocol_errors",
    "lost_at_(end|start)": "reason_not_end_from_trigger, reason_not_start_from_trigger",
    "_(unfit|unrendered|NO_MARK)": "_unsupported_parts, _unsupported_template_names, _NO_DELIVERY_MARKER",
    "RunWaiter": "DeferrableRunBaseOperator",
    "take_event": "resume_from_trigger",
    "_worker_(gone|lingers)": "_wait_for_worker_release, _worker_release_delay",
    "of_no_use": "discarded",
    "_taken_over_after": "_lease_duration",
    "AT_A_TIME": "MAX_CONCURRENT_SUBMISSIONS",
    "let_go": "release",
    "_as_it_is": "_no_auth",
    "anews|heed_success|forget_failed|go_on": "seek_to_end, apply_success, requeue_failed, resume",
    "HookElsewhere|of_triggerer|of_worker|_no_harm": "CrossLoopHook, triggerer_stats, worker_stats, _best_effort",
    "NoAnswer|_no_news|_no_account|DENIALS_BELIEVED": "NoResponse, request_failed, DENIALS_BEFORE_FAILURE",
}

# A name is matched in its own case, between characters that are no letters: so is a word within a longer name.
_EDGES = r"(?<![A-Za-z])(?:{})(?![A-Za-z])"
RULES = [
    *((re.compile(_EDGES.format(words), re.IGNORECASE), better) for words, better in WORDS.items()),
    *((re.compile(_EDGES.format(names)), better) for names, better in NAMES.items()),
]


def findings(root: Path) -> Iterator[str]:
    """Return what is to be replaced in the project's texts, as ``file:line: word -> replacement``."""
    paths = [path for folder in CHECKED for path in sorted((root / folder).rglob("*")) if path.suffix in SUFFIXES]
    for path in [*paths, *(root / page for page in PAGES if (root / page).is_file())]:
        name = path.relative_to(root).as_posix()
        if name.startswith(EXEMPT):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for rule, better in RULES:
                yield from (f"{name}:{number}: {match[0]} -> {better}" for match in rule.finditer(line))


if __name__ == "__main__":
    found = list(findings(ROOT))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
