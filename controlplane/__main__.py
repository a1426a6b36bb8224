"""`python -m controlplane` and the `controlplane` console script."""

from controlplane.cli import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
