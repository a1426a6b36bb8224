"""What a PDF of ours says."""

import re


def texts(pdf: bytes) -> list[str]:
    """Return what a PDF without compression says, in order."""
    found = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", pdf)
    plain = (re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), one) for one in found)
    return [re.sub(rb"\\(.)", rb"\1", one).decode("cp1252") for one in plain]
