"""Reads every file that the settings name as the roles would, and keeps nothing."""

from controlplane.bootstrap.collector import receiver_manners
from controlplane.bootstrap.data_files import load_rules, read_list
from controlplane.bootstrap.gpu_pools import load_pools
from controlplane.bootstrap.recording import content_policy
from controlplane.bootstrap.scraping import load_scrape_jobs
from controlplane.pricing.contracts import read_contracts
from controlplane.pricing.overrides import read_own_prices
from controlplane.settings import Settings


def check_files(settings: Settings) -> None:
    """Find now what would refuse to start.

    Raises:
        ConfigError: names the setting, the entry that is wrong and what it takes.
    """
    tls = receiver_manners(settings.collector).tls
    if tls is not None:
        tls.check()
    load_rules(settings)
    load_scrape_jobs(settings.collector.scrape_jobs)
    load_pools(settings.gpu_pools)
    read_own_prices(read_list("price_overrides", settings.price_overrides))
    read_contracts(read_list("contracts", settings.contracts))
    content_policy(settings.content)
