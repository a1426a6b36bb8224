"""One frozen Settings; the only reader of the environment and the configuration file."""
