"""Packages whose names are loaded when they are first used: settings can then be read without loading PyTorch."""

import importlib
from collections.abc import Callable, Mapping

__all__ = ["lazy"]


def lazy(package: str, home: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package.

    Parameters
    ----------
    package
        Its ``__name__``.
    home
        Submodule -> names that are found there.
    """
    module_of = {name: f"{package}.{module}" for module, names in home.items() for name in names}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module_of[name]), name)

    return load
