"""Linear operators: what was measured, as a map from the image to the data.

An operator knows the shape (without batch axis), dtype and device of both sides, and checks what it is given. ``A(x)``
or ``A.forward(x)``, ``A.adjoint(y)`` and ``A.normal(x)`` apply it. ``A.H``, ``A @ B``, ``c * A``, ``A + B`` and
``A - B`` make new operators. ``A.norm()`` is the spectral norm. Gradients flow through the adjoint. If ``A^H A`` is a
convolution, ``A.normal_transfer_function()`` says which one: a solver needs nothing else to be fast.

======================= ======================================== ================== ==============================
operator                ``A x``                                  images             ``A^H A``
======================= ======================================== ================== ==============================
`Identity`              ``x``: denoising                         real or complex    identity
`Fourier`               centred orthonormal Fourier transform    complex            identity
`FourierSubsampling`    ``M F x``: single-coil Cartesian MRI     real or complex    convolution (the mask)
`SensitivityMaps`       ``S x``: what every coil sees             real or complex    no convolution
`Sense`                 ``M F S x``: multi-coil Cartesian MRI    real or complex    no convolution
`BlurDownsample`        Gaussian blur, every 4th sample          real or complex    no convolution
`OnLargerGrid`          ``A x[..., :y, :x]``                     as ``A``           no convolution
``A @ B``, ``c * A``    composition, scaling                     as ``B``, ``A``    a convolution where known
``A + B``, ``A - B``    sum, difference                          as ``A``           no convolution
======================= ======================================== ================== ==============================

Images are ``(batch, 1, y, x)``; with several sets of coil maps ``(batch, set, y, x)``. A new operator is a subclass of
`LinearOperator` with `_forward` and `_adjoint`.
"""

from mrisps.operators.blur import BlurDownsample
from mrisps.operators.cartesian import FourierSubsampling
from mrisps.operators.fourier import Fourier, fft2c, ifft2c
from mrisps.operators.identity import Identity
from mrisps.operators.larger import OnLargerGrid
from mrisps.operators.linear import LinearOperator
from mrisps.operators.per_entry import PerEntry
from mrisps.operators.sampled import SampledConvolution
from mrisps.operators.sense import Sense, SensitivityMaps

__all__ = [
    "BlurDownsample",
    "Fourier",
    "FourierSubsampling",
    "Identity",
    "LinearOperator",
    "OnLargerGrid",
    "PerEntry",
    "SampledConvolution",
    "Sense",
    "SensitivityMaps",
    "fft2c",
    "ifft2c",
]
