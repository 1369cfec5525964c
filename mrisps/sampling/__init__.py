"""What was measured: sampling masks of a Cartesian k-space, the kinds of them, and mask files.

`SamplingMask` is the one type of a mask. `make_mask` makes one of `MASK_KINDS`, `SamplingMask.from_array` takes a NumPy
array or a tensor, `SamplingMask.from_zeros` k-space, `read_mask` a file.
"""

from mrisps.sampling.checks import MASK_KINDS
from mrisps.sampling.files import read_mask, write_mask
from mrisps.sampling.mask import SamplingMask
from mrisps.sampling.patterns import make_mask

__all__ = ["MASK_KINDS", "SamplingMask", "make_mask", "read_mask", "write_mask"]
