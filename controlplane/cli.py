"""The commands of design section 13: one function each, no logic."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """Observability and cost-governance control plane for AI inference."""
