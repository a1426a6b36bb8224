"""Both OTLP receivers as one thing to start and stop."""

from collectors.otlp.grpc_server import OtlpGrpcServer
from collectors.otlp.http_server import OtlpHttpServer
from collectors.otlp.manners import DEFAULT_MANNERS, Manners
from collectors.otlp.receive import Receiver
from controlplane.core.clock import Clock
from controlplane.core.errors import UnavailableError
from controlplane.ingest.limits import DEFAULT_LIMITS, Limits
from controlplane.ingest.ports import KeyResolver, Spool


class OtlpCollector:
    """Receives OTLP on two ports and acknowledges what the spool has kept.

    Ports are bound when it is made: 0 asks for free ones, `grpc_port` and `http_port` say which.

    Raises:
        UnavailableError: a port is taken.
        ConfigError: a TLS file can not be used.
    """

    def __init__(  # noqa: PLR0913 - each is one thing the composition root decides; by name
        self,
        *,
        keys: KeyResolver,
        spool: Spool,
        clock: Clock,
        limits: Limits = DEFAULT_LIMITS,
        host: str = "127.0.0.1",
        grpc_port: int = 4317,
        http_port: int = 4318,
        manners: Manners = DEFAULT_MANNERS,
    ) -> None:
        if manners.tls is not None:
            manners.tls.check()
        receiver = Receiver(keys=keys, spool=spool, limits=limits, clock=clock)
        self._http = OtlpHttpServer(receiver, host=host, port=http_port, manners=manners)
        try:
            self._grpc = OtlpGrpcServer(receiver, host=host, port=grpc_port, manners=manners)
        except UnavailableError:
            self._http.stop()
            raise
        self.http_port = self._http.port
        self.grpc_port = self._grpc.port

    def start(self) -> None:
        """Return when both ports accept requests."""
        self._http.start()
        self._grpc.start()

    def stop(self) -> None:
        """Let requests in flight end, and close both ports. The spool stays open."""
        self._grpc.stop()
        self._http.stop()
