"""Which software this is: its version, and the commit of the tree that it runs from."""

import functools
import hashlib
import subprocess
from pathlib import Path

__all__ = ["__version__", "code_commit", "software_key"]

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


@functools.cache
def software_key() -> str:
    """Version and commit; for a tree that was edited, or that has no commit, also a hash of its source files."""
    commit = code_commit()
    if commit is not None and not commit.endswith("-dirty"):
        return f"{__version__} {commit}"
    root = Path(__file__).resolve().parent
    sources = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sources.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return f"{__version__} {commit} {sources.hexdigest()}"
