"""`python -m dashboard`: serve until stopped; settings come from `CONTROLPLANE_DASHBOARD_*`."""

import sys
import threading
from importlib import import_module
from typing import Any

from dashboard import settings
from dashboard.app import create_app


def server_options(told: settings.DashboardSettings) -> dict[str, Any]:
    """Answer what is shipped instead of Streamlit's defaults (ux_trust ST-12, ST-14)."""
    return {
        "server.address": told.host,
        "server.port": told.port,
        "server.headless": True,
        "server.allowedHosts": list(told.allowed_hosts),
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableAgentApi": False,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 1,
        "browser.gatherUsageStats": False,  # no request ever leaves the installation
        "runner.magicEnabled": False,  # a page shows what it is told to, not each bare expression
        "client.showErrorDetails": "none",
        "client.toolbarMode": "viewer",
        "theme.base": "light",
        "theme.primaryColor": "#0B5FA5",
        "theme.metricValueFontSize": "1.6rem",
    }


def _preload() -> None:
    """Import what the first page needs while the person still looks for the link."""
    for module in ("altair", "pandas", "pyarrow", "dashboard.charts"):
        import_module(module)


def main() -> None:
    """Serve; a wrong setting ends with a sentence that names it."""
    try:
        told = settings.current()
    except ValueError as wrong:
        sys.exit(str(wrong))
    threading.Thread(target=_preload, name="preload", daemon=True).start()
    create_app(told).run(config=server_options(told))


if __name__ == "__main__":
    main()
