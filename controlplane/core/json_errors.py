"""What `msgspec.json.decode` raises on bytes from outside: it is more than its own error."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Not JSON or not of the type; a text that is not UTF-8; nested deeper than the interpreter goes."""
