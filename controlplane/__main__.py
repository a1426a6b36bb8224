"""`python -m controlplane` and the `controlplane` console script."""

from controlplane.cli import main

if __name__ == "__main__":
    main()
