"""The configured destinations: the objects that send, and what the record has to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.deliver import DESTINATION_TYPES
from msnode.deliver.dicom import DicomDestination as DicomPeer
from msnode.deliver.dicomweb import DicomWebDestination as DicomWebPeer
from msnode.dicom.connection import DicomAddress
from msnode.encode.kinds import SERIES_DESCRIPTIONS, USUAL_KINDS, ResultRules
from msnode.record.delivery import Recipient, Verify
from msnode.settings import DicomDestination, DicomWebDestination, FolderDestination

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msnode.deliver.destination import Destination, VerifiableDestination
    from msnode.settings import Settings


def destinations(settings: Settings) -> Mapping[str, Destination]:
    """The configured destinations, by name."""
    made: dict[str, Destination] = {}
    for each in settings.destinations:
        common = {"name": each.name, "objects": frozenset(each.objects)}
        make = DESTINATION_TYPES[each.type]
        if isinstance(each, DicomDestination):
            address = DicomAddress(each.ae_title, each.host, each.port)
            made[each.name] = make(
                **common, address=address, calling_ae=settings.node.ae_title, verify=each.verify,
                commitment_deadline_s=each.commitment_deadline_s,
                label_map=settings.results.segmentation == "labelmap",
            )  # fmt: skip
        elif isinstance(each, DicomWebDestination):
            made[each.name] = make(**common, url=each.url)
        else:
            made[each.name] = make(**common, folder=each.path)
    return made


def verifiable(there: Mapping[str, Destination]) -> Mapping[str, VerifiableDestination]:
    """Those of the destinations that can be asked whether they keep what they were given."""
    kinds = (DicomPeer, DicomWebPeer)
    return {name: destination for name, destination in there.items() if isinstance(destination, kinds)}


def reporting_addresses(settings: Settings) -> Mapping[str, DicomAddress]:
    """Calling AE title of each peer whose commitment requests are answered → where its answers go."""
    return {
        peer.ae_title: DicomAddress(peer.ae_title, peer.commitment.host, peer.commitment.port)
        for peer in settings.receive.peers
        if peer.commitment is not None
    }


def result_rules(settings: Settings) -> ResultRules:
    """What readings make: what every reading makes, and whatever else a destination takes."""
    taken = {kind for each in settings.destinations for kind in each.objects} - {"ko"}
    return ResultRules(
        kinds=USUAL_KINDS | taken,
        segmentation=settings.results.segmentation,
        mark_below=settings.model.mark_below_confidence,
        descriptions={**SERIES_DESCRIPTIONS, **{str(k): v for k, v in settings.results.descriptions.items()}},
    )


def recipients(settings: Settings) -> Mapping[str, Recipient]:
    """Destination → what it receives, and how it confirms it."""
    return {
        each.name: Recipient(
            frozenset(each.objects),
            # A file that was written, synced and renamed needs nobody's word.
            Verify.NONE if isinstance(each, FolderDestination) else Verify(each.verify),
        )
        for each in settings.destinations
    }
