"""Receives over the network: a peer's input is bounded, checked, made durable, then answered."""

from msnode.dicom import decoders

decoders.keep_out()
