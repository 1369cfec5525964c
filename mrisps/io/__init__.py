"""Files to records and back, without mathematics: import the module of the format you need.

======================  ===============================================================================================
`acquisition`           `Acquisition`, the record of one slice of k-space
`kspace_file`           `open_kspace`: k-space in any format, as a `KspaceFile`
`fastmri`               fastMRI's HDF5 layout: `FastmriFile`, `KspaceWriter`, `ReconstructionWriter`
`ismrmrd`               ISMRMRD (MRD) raw data: `IsmrmrdFile`; `ismrmrd_writer` writes raw data and images
`ismrmrd_header`        the XML header that MRD and fastMRI's files have
`twix`                  Siemens raw data: `TwixFile`
`readouts`              lists of readouts (MRD, twix) to images: `RawImages`
`bart`                  BART's cfl and hdr: `BartFile`, `CflWriter`
`arrays`, `matlab`      k-space in npy, npz and mat files, whose axes are stated: `ArrayFile`
`conversion`            k-space from one format to another: `convert_kspace`
`image_volume`          stacks of images with their place: `ImageVolume`; `dicom` reads them, `nifti` writes them
`images`                grey images in PNG, TIFF and NPY
`paper_slices`          the paper's slices (npz) to fastMRI's layout
`manifest`              lists of files with checksums: `Manifest`; `manifest_maker` makes them
`hdf5`, `mapped`        reading with errors that name file and field, writing all or nothing; mapped files
======================  ===============================================================================================
"""
