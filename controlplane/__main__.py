"""`python -m controlplane` and the `controlplane` console script."""

from controlplane.cli.main import main

if __name__ == "__main__":
    main()
