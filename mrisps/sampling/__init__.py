"""What was measured: sampling masks of a Cartesian k-space, the kinds of them, and mask files.

`SamplingMask` is the one type of a mask: `make_mask` makes one of `MASK_KINDS`, `SamplingMask.from_array` takes a NumPy
array or a tensor, `read_mask` a file.
"""

from mrisps.sampling.files import read_mask
from mrisps.sampling.mask import MASK_KINDS, SamplingMask
from mrisps.sampling.patterns import make_mask

__all__ = ["MASK_KINDS", "SamplingMask", "make_mask", "read_mask"]
