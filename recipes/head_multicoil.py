"""Raw multi-coil data of heads: the recipe `multicoil` with weights that were trained on heads with several coils.

For other parts of the body take `multicoil`: on knees these weights lose 0.1 to 0.3 dB.
"""

from dataclasses import replace

from mrisps.reconstruction.recipe import load_recipe

recipe = replace(
    load_recipe("multicoil"),
    name="head_multicoil",
    description="raw multi-coil data of heads, any Cartesian sampling",
    weights="head",
    weights_sha256="dac36122133d8dba110b4ada842f3fbc298b6141aec18f024ded236b405e38ef",
)
