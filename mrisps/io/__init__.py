"""Files to records and back, without mathematics: import the module of the format you need.

================  =====================================================================================================
`acquisition`     `Acquisition`, the record of one slice of k-space
`fastmri`         fastMRI's HDF5 layout: `FastmriFile`, `summarize`, `ReconstructionWriter`, `write_kspace`
`images`          grey images in PNG, TIFF and NPY
`paper_slices`    the paper's slices (npz) to fastMRI's layout
`manifest`        lists of files with checksums: `Manifest`
`hdf5`, `atomic`  reading with errors that name file and field; writing all or nothing
================  =====================================================================================================
"""
