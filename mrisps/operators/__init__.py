"""Linear operators: what was measured, as a map from the image to the data.

An operator knows the shape (without batch axis), dtype and device of both sides and checks what it is given; ``A(x)``
or ``A.forward(x)``, ``A.adjoint(y)`` and ``A.normal(x)`` apply it, ``A.H``, ``A @ B`` and ``c * A`` make new ones,
``A.norm()`` is its spectral norm, and gradients flow through the adjoint. Where ``A^H A`` is a convolution,
``A.normal_transfer_function()`` says which: that is all a solver asks to be fast.

======================= ======================================== ================== ==============================
operator                ``A x``                                  images             ``A^H A``
======================= ======================================== ================== ==============================
`Identity`              ``x``: denoising                         real or complex    identity
`Fourier`               centred orthonormal Fourier transform    complex            identity
`FourierSubsampling`    ``M F x``: single-coil Cartesian MRI     real or complex    convolution (the mask)
`SensitivityMaps`       ``S x``: what every coil sees             real or complex    no convolution
`Sense`                 ``M F S x``: multi-coil Cartesian MRI    real or complex    no convolution
`BlurDownsample`        Gaussian blur, every 4th sample          real or complex    no convolution
``A @ B``, ``c * A``    composition, scaling                     as ``B``, ``A``    a convolution where known
======================= ======================================== ================== ==============================

A new operator is a subclass of `LinearOperator` with `_forward` and `_adjoint`.
"""

from mrisps.operators.blur import BlurDownsample
from mrisps.operators.cartesian import FourierSubsampling
from mrisps.operators.fourier import Fourier, fft2c, ifft2c
from mrisps.operators.identity import Identity
from mrisps.operators.linear import LinearOperator
from mrisps.operators.sense import Sense, SensitivityMaps

__all__ = [
    "BlurDownsample",
    "Fourier",
    "FourierSubsampling",
    "Identity",
    "LinearOperator",
    "Sense",
    "SensitivityMaps",
    "fft2c",
    "ifft2c",
]
