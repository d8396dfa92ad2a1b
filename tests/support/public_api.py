"""Names that users rely on."""

from __future__ import annotations

RESPONSE_FIELDS = {
    "status",
    "data",
    "details",
    "completed",
    "error_message",
    "used_credits",
    "run_time",
    "usage",
    "url",
    "error_code",
    "asset",
    "additional_fields",
}

AGENT_FIELDS = RESPONSE_FIELDS | {"output", "session_id", "request_id", "artifacts"}
