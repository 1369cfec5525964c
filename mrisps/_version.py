"""Which software this is: its version, and the commit of the tree that it runs from."""

import functools
import subprocess
from pathlib import Path

__all__ = ["__version__", "code_commit"]

__version__ = "0.1.0"


@functools.cache
def code_commit() -> str | None:
    """The commit of the source tree that this runs from, with ``-dirty`` if it was edited since; None outside a tree of its own."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: the tree around it, if there is one, is somebody else's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or not a tree that it accepts
        return None
    return done.stdout.strip() or None
