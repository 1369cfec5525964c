"""Files to records and back, without mathematics: import the module of the format you need.

==================================  ===================================================================================
`acquisition`                       `Acquisition`, the record of one slice of k-space
`kspace_file`                       `KspaceFile`: what every source of k-space gives, a slice at a time
`open`                              `open_kspace`: k-space in any format
`memory`                            `MemoryKspace`: k-space in arrays and tensors
`fastmri`                           fastMRI's HDF5 layout: `FastmriFile`, `write_fastmri`, `write_kspace`
`ismrmrd`, `ismrmrd_writer`         ISMRMRD (MRD): `IsmrmrdFile`, `write_ismrmrd`; `ismrmrd_header`: its XML header
`ismrmrd_messages`                  the same from acquisitions that came one by one: `IsmrmrdMessages`
`twix`                              Siemens raw data: `TwixFile`
`raw_file`                          lists of readouts to slices, three-dimensional ones too: `RawFile`
`bart`                              BART's cfl and hdr: `BartFile`, `write_cfl`
`arrays`, `matlab`                  arrays in npy, npz and mat files, whose axes are stated: `ArrayFile`, `read_array`
`conversion`                        k-space from one format to another: `convert_kspace`
`result_file`                       our results: `ResultFile`, `ResultWriter`
`image_volume`                      stacks of images with their place: `ImageVolume`; `dicom` reads them
`ismrmrd_images`                    MRD images one by one, with header and Meta: what reconstruction servers send
`dicom_writer`                      images to DICOM; `dicom_exam`: of whom; `dicom_plane`: where they lie; `burn_in`
`write_images`, `nifti`, `images`   images to NIfTI, MRD, PNG, TIFF, NPY: `write_volume`; grey images: `read_image`
`paper_slices`                      the paper's slices (npz) to fastMRI's layout
`manifest`, `manifest_maker`        lists of files with checksums: `Manifest`
`files`                             what a folder holds, checksums: `files_in`, `sha256_of`
`hdf5`, `hdf5_writer`               reading with errors that name file and field; writing all or nothing
`json_text`                         JSON texts in attributes
==================================  ===================================================================================
"""
