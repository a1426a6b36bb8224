"""The collector role: receivers and scrapers → spool → decode, normalise, attribute, price → the span store."""

import structlog
from prometheus_client import start_http_server

from collectors.otlp.collector import OtlpCollector
from collectors.otlp.manners import Manners, TlsFiles
from collectors.scrape.scraper import Scraper
from collectors.spool import SqliteSpool
from controlplane import log, telemetry
from controlplane.bootstrap.attribution_rules import open_rules
from controlplane.bootstrap.metadata import open_keys, open_metadata
from controlplane.bootstrap.one_owner import own
from controlplane.bootstrap.places import COLLECTOR_LOCK, HUB_SOCKET, SPOOL_DIR, SPOOL_KEY
from controlplane.bootstrap.price_books import open_book
from controlplane.bootstrap.recording import content_policy
from controlplane.bootstrap.scraping import load_scrape_jobs
from controlplane.bootstrap.supervisor import say_ready, wait_for_stop
from controlplane.bootstrap.system import SystemClock, UlidIds, secret_file
from controlplane.ingest.gateways import Gateway
from controlplane.ingest.limits import Limits
from controlplane.ingest.ports import SpoolBatch
from controlplane.pipelines.ingest import IngestOutcome, ingest_batch
from controlplane.settings import CollectorSettings, Settings
from controlplane.store.metadata.senders import SenderResolver
from controlplane.store.spans.flight_client import FlightSpanWriter
from controlplane.workers.ingest_loop import IngestLoop


def receiver_manners(told: CollectorSettings) -> Manners:
    """Return what connections may ask of the receivers."""
    tls = None
    if told.tls_cert_file and told.tls_key_file:
        tls = TlsFiles(
            cert=told.tls_cert_file, key=told.tls_key_file, client_ca=told.tls_client_ca_file
        )
    return Manners(
        max_connections=told.max_connections,
        header_seconds=told.header_timeout_seconds,
        body_seconds=told.body_timeout_seconds,
        tls=tls,
    )


def run(settings: Settings, *, supervised: bool) -> None:
    """Receive until stopped; what is acknowledged but not stored yet keeps in the spool."""
    log.configure(level=settings.log_level)
    own(settings.data_dir / COLLECTOR_LOCK, by="a collector")
    told = settings.collector
    limits = Limits(
        max_compressed_bytes=told.max_compressed_bytes,
        max_decompressed_bytes=told.max_decompressed_bytes,
        max_spans_per_request=told.max_spans_per_request,
        max_age_days=told.max_age_days,
    )
    engine = open_metadata(settings)
    keys = SenderResolver(open_keys(settings, engine), keyless=settings.keyless_allowed)
    spool_dir = settings.data_dir / SPOOL_DIR
    spool_dir.mkdir(exist_ok=True, mode=0o700)
    spool = SqliteSpool(
        spool_dir / "spool.sqlite",
        key=secret_file(settings.secrets_dir / SPOOL_KEY),
        ids=UlidIds(),
        max_bytes=told.spool_max_bytes,
    )
    writer = FlightSpanWriter(settings.data_dir / HUB_SOCKET)
    book, rules = open_book(settings, engine), open_rules(settings, engine)

    content = content_policy(settings.content)
    gateways = [Gateway(one.address, one.service) for one in settings.gateways]

    def ingest(batch: SpoolBatch) -> IngestOutcome:
        return ingest_batch(
            batch,
            book=book.current(),
            rules=rules.current(),
            limits=limits,
            writer=writer,
            content=content,
            gateways=gateways,
        )

    loop = IngestLoop(spool, ingest=ingest)
    receivers = OtlpCollector(
        keys=keys,
        spool=spool,
        clock=SystemClock(),
        limits=limits,
        host=told.host,
        grpc_port=told.grpc_port,
        http_port=told.http_port,
        manners=receiver_manners(told),
    )
    scraper = Scraper(load_scrape_jobs(told.scrape_jobs), spool=spool, clock=SystemClock())
    metrics, _ = start_http_server(told.metrics_port, told.host, registry=telemetry.REGISTRY)
    loop.start()
    receivers.start()
    scraper.start()
    say_ready(
        grpc=f"{told.host}:{receivers.grpc_port}",
        http=f"http://{told.host}:{receivers.http_port}",
        metrics=f"http://{told.host}:{metrics.server_port}/metrics",
    )
    wait_for_stop(supervised=supervised)
    structlog.get_logger().info("collector_stopping")
    scraper.stop()
    receivers.stop()
    loop.stop()
    spool.close()
    writer.close()
    metrics.shutdown()
    engine.dispose()
