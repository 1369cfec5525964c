"""The reconstruction server of a clinic: MRD streams in, images out.

==============  ============================================================================================================
`messages`      messages of the MRD protocol, with limits that hold before memory is taken: `MessageReader`, `Limits`
`measurement`   what a client sent, gathered and checked: `receive`, `Measurement`
`images`        slices as MRD images with header and Meta: `mrd_images`
`session`       one reconstruction: `Site` (what this server allows), `serve_measurement`
`listen`        TCP: places, time-outs, the log: `MrdServer`, `check_server`
`client`        send a file, receive images: `send_file`
`plugin`        the same reconstruction as a module of python-ismrmrd-server: `process`
==============  ============================================================================================================

Source of the protocol: ISMRMRD, ``doc/mrd_streaming_protocol.md`` and ``doc/mrd_messages.md``.
"""
