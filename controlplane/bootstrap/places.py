"""Names of what lies in the data directory and in the keys directory."""

from typing import Final

HUB_SOCKET: Final = "hub.sock"
SPANS_FILE: Final = "spans.duckdb"
SPOOL_DIR: Final = "spool"
LOGS_DIR: Final = "logs"
EXPORTS_DIR: Final = "exports"
UP_LOCK: Final = "up.lock"
COLLECTOR_LOCK: Final = "collector.lock"

SIGNING_KEY: Final = "signing-key"
NEXT_SIGNING_KEY: Final = "signing-key.next"
INSTANCE_ID: Final = "instance-id"
SPOOL_KEY: Final = "spool-key"
SUBJECT_KEY: Final = "subject-key"
"""Names erased people: with another key they would come back."""
KEY_PEPPER: Final = "api-key-pepper"
