"""The content security policy, strict but for what Streamlit itself needs."""

import base64
import re
from hashlib import sha256
from pathlib import Path

import streamlit as st

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def policy() -> str:
    """Answer the header's value; nothing may come from, or go to, another host.

    Vega compiles its expressions, hence unsafe-eval; Streamlit's styles are inline. Its page has
    a script of its own inside, which is allowed by hash, so that no other inline script runs.
    """
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in _INLINE.findall(page))
    return (
        f"default-src 'self'; script-src 'self' 'unsafe-eval' {hashes}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(sha256(script.encode()).digest()).decode()
