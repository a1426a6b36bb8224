"""Every metric about ourselves, declared once; names and units follow Prometheus' conventions."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

RECEIVED_SPANS = Counter(
    "controlplane_ingest_received_spans_total",
    "Spans in requests that were acknowledged.",
    ["signal"],
    registry=REGISTRY,
)
REJECTED = Counter(
    "controlplane_ingest_rejected_total",
    "Requests or spans refused, by reason.",
    ["reason"],
    registry=REGISTRY,
)
STORED_SPANS = Counter("controlplane_ingest_stored_spans_total", "Spans stored.", registry=REGISTRY)
DUPLICATE_SPANS = Counter(
    "controlplane_ingest_duplicate_spans_total", "Spans dropped as resends.", registry=REGISTRY
)
ACK_SECONDS = Histogram(
    "controlplane_ingest_ack_seconds",
    "Request received to acknowledged, the spool's fsync included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)
SPOOL_BYTES = Gauge("controlplane_spool_bytes", "Bytes waiting in the spool.", registry=REGISTRY)
SPOOL_ENTRIES = Gauge(
    "controlplane_spool_entries", "Requests waiting in the spool.", registry=REGISTRY
)
SETTLE_SECONDS = Histogram(
    "controlplane_settle_seconds", "Duration of one settle tick.", registry=REGISTRY
)
WORKER_ERRORS = Counter(
    "controlplane_worker_errors_total", "Failed rounds of a worker.", ["worker"], registry=REGISTRY
)
API_REQUEST_SECONDS = Histogram(
    "controlplane_api_request_seconds",
    "API request received to answered, long polls excluded.",
    ["route", "method", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
API_REFUSED = Counter(
    "controlplane_api_refused_total",
    "API requests answered with a problem, by its code.",
    ["code"],
    registry=REGISTRY,
)
PRICE_BOOK_VERSION = Gauge(
    "controlplane_price_book_version",
    "The price version that calls are priced with.",
    registry=REGISTRY,
)
PRICE_LIST_RECORDED = Gauge(
    "controlplane_price_list_recorded_timestamp_seconds",
    "When the price list was last imported; its age is how stale prices may be.",
    registry=REGISTRY,
)
REFUSED_CLAIMS = Counter(
    "controlplane_attribution_refused_total",
    "Spans that claimed a reserved team or other dimension, by reservation.",
    ["reservation"],
    registry=REGISTRY,
)
UNKNOWN_DIALECTS = Counter(
    "controlplane_ingest_unknown_dialect_spans_total",
    "Reports of calls that no dialect is known for, by instrumentation scope.",
    ["scope_name"],
    registry=REGISTRY,
)
ATTRIBUTION_VERSION = Gauge(
    "controlplane_attribution_version",
    "Version of the attribution rules in force; 0 is the built-in ones.",
    registry=REGISTRY,
)
STORED_SAMPLES = Counter(
    "controlplane_ingest_stored_samples_total",
    "Measurements stored, from OTLP metrics and scrapes.",
    registry=REGISTRY,
)
STORED_EVENTS = Counter(
    "controlplane_ingest_stored_events_total",
    "Evaluations, feedback and guardrail results stored.",
    registry=REGISTRY,
)
SCRAPE_UP = Gauge(
    "controlplane_scrape_up",
    "Whether the last scrape of a target brought something.",
    ["job", "instance"],
    registry=REGISTRY,
)
SCRAPE_LAST_SUCCESS = Gauge(
    "controlplane_scrape_last_success_timestamp_seconds",
    "When a target was last scraped.",
    ["job", "instance"],
    registry=REGISTRY,
)
SCRAPE_FAILURES = Counter(
    "controlplane_scrape_failures_total",
    "Scrapes that brought nothing, by reason.",
    ["job", "reason"],
    registry=REGISTRY,
)
SCRAPE_SAMPLES = Counter(
    "controlplane_scrape_metrics_total",
    "Metrics read from targets.",
    ["job"],
    registry=REGISTRY,
)
POLICY_PROPAGATION_SECONDS = Histogram(
    "controlplane_policy_propagation_seconds",
    "Generation published to applied, as a node acknowledges it, once a node.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
SYNCS_TOGETHER = Histogram(
    "controlplane_syncs_per_transaction",
    "Syncs of agents that shared one transaction of the ledger.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
    registry=REGISTRY,
)
POLICY_NACKS = Counter(
    "controlplane_policy_nacks_total", "Syncs that refuse a generation.", registry=REGISTRY
)
POLICY_BREAK_GLASS = Counter(
    "controlplane_policy_break_glass_total",
    "Proposals that were published without a second person.",
    registry=REGISTRY,
)
POLICY_FORGED = Counter(
    "controlplane_policy_forged_total",
    "Nodes that said they run a generation of ours with other content, once a node and generation.",
    registry=REGISTRY,
)
POLICY_STREAMS = Gauge("controlplane_policy_streams", "Open policy streams.", registry=REGISTRY)
POLICY_ROLLOUTS = Counter(
    "controlplane_policy_rollouts_total",
    "Staged roll-outs that ended, by how.",
    ["state"],
    registry=REGISTRY,
)
VELOCITY_QUOTAS = Counter(
    "controlplane_velocity_quotas_total",
    "Quotas that began because a key or a user spent too fast.",
    ["scope", "limit"],
    registry=REGISTRY,
)
VELOCITY_LEFT_OUT = Gauge(
    "controlplane_velocity_left_out",
    "Keys and users above a limit of a scope without a quota: too many, or not to be told apart.",
    ["scope"],
    registry=REGISTRY,
)
LEDGER_RECOVERING = Gauge(
    "controlplane_ledger_recovering",
    "1 while the ledger was restored and grants nothing.",
    registry=REGISTRY,
)
