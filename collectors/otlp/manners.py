"""How long and how many: what a connection may ask of a receiver, and TLS in front of both."""

import ssl
from pathlib import Path
from typing import Final

import msgspec

from controlplane.core.errors import ConfigError


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files; with `client_ca` a client must show a certificate that it signed (mTLS)."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Read everything once, before anything listens.

        Raises:
            ConfigError: a file is missing or unreadable, or key and certificate do not match.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            raise _unusable("tls_cert_file", f"{self.cert} with {self.key}", error) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise _unusable("tls_client_ca_file", str(self.client_ca), error) from None


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on connections. A slow sender holds one connection until its deadline, no thread."""

    max_connections: int = 1_024
    """Of each receiver; more wait in the backlog."""
    header_seconds: float = 10.0
    """For the head of a request, and between requests of one connection."""
    body_seconds: float = 60.0
    """For the whole body of a request, once its head is there."""
    tls: TlsFiles | None = None


DEFAULT_MANNERS: Final = Manners()


def _unusable(key: str, what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"collector.{key}",
        f"{what} can not be used ({type(error).__name__}: {error})",
        "Name readable PEM files that belong together",
    )
