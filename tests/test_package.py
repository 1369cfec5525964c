"""The public names, and what importing the package costs."""

import subprocess
import sys

import pytest

import mrisps


def test_every_public_name_can_be_had() -> None:
    for name in mrisps.__all__:
        assert getattr(mrisps, name) is not None
    assert set(mrisps.__all__) <= set(dir(mrisps))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reconstrukt'"):
        _ = mrisps.reconstrukt


def test_import_loads_nothing_heavy() -> None:
    program = "import mrisps, sys; print({'torch', 'numpy', 'h5py', 'sigpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
