"""What a server's allocators do with large blocks, asked of the C library in a process of its own."""

import subprocess
import sys

import pytest

_MAPPED = """
import ctypes, os, sys
if sys.argv[1] == "kept":
    from controlplane.bootstrap.allocators import keep_freed_memory
    keep_freed_memory()
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
before = libc.mallinfo2().hblks
assert libc.malloc(8 << 20)
print(libc.mallinfo2().hblks - before, os.environ.get("MIMALLOC_PURGE_DELAY"))
"""


def _asked(how: str, **env: str) -> list[str]:
    command = [sys.executable, "-c", _MAPPED, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is tuned")
def test_a_large_block_is_not_mapped_by_itself() -> None:
    assert ["1", "None"] == _asked("plain")
    assert ["0", "10000"] == _asked("kept")


def test_what_the_environment_says_stays() -> None:
    assert "50" == _asked("kept", MIMALLOC_PURGE_DELAY="50")[1]
