"""Every way a job can end. The class is the decision: it tells the worker what to do next.

    MsnodeError
    ├─ ConfigurationError      refuse to start (exit 2): which key is wrong and what would be right
    ├─ Rejected                final answer, recorded and reported, never retried
    │  ├─ NotReadable          bytes that are no DICOM image (also answered 0xC000 at the door)
    │  ├─ NoEligibleSeries
    │  ├─ AmbiguousSelection
    │  ├─ SeveralPatients
    │  ├─ NotAVolume
    │  └─ OutsideModelScope
    ├─ ModelError              stops the jobs of one bundle, not the worker
    │  ├─ BundleMissing
    │  ├─ BundleCorrupt
    │  └─ RecipeMismatch
    ├─ Transient               retry later, with a limit
    │  ├─ PeerUnreachable
    │  ├─ AssociationRejected
    │  ├─ OutOfResources
    │  ├─ ProcessDied
    │  └─ ProcessKilled
    ├─ DeliveryRefused         final for that destination
    ├─ StoredBytesChanged      needs a person: bytes in the store are not those that were recorded
    ├─ ReadingFailed           an exception that nothing foresaw, while a study was read
    └─ InvalidTransition       a bug

Messages carry UIDs and numbers, never names or birth dates: they reach logs and reports.
"""


class MsnodeError(Exception):
    """Base of every error that msnode raises on purpose."""


class ConfigurationError(MsnodeError):
    """A setting, an argument or the machine is not as it must be; nothing was started."""


class Rejected(MsnodeError):
    """The input cannot be read; the reason is final and is reported."""


class NotReadable(Rejected):
    """The bytes are not a DICOM image that can be decoded."""


class NoEligibleSeries(Rejected):
    """No series of the study satisfies the selection rules."""


class AmbiguousSelection(Rejected):
    """Several series satisfy the selection rules equally well."""


class SeveralPatients(Rejected):
    """The images of one study name more than one patient."""


class NotAVolume(Rejected):
    """The instances do not form one regular stack of slices (PS3.3 C.7.6.2)."""


class OutsideModelScope(Rejected):
    """The series lies outside what the bundle declares it was made for."""


class ModelError(MsnodeError):
    """The model cannot be used; jobs that need it stop, the worker goes on."""


class BundleMissing(ModelError):
    """No bundle of that name and version."""


class BundleCorrupt(ModelError):
    """A file of the bundle does not have the digest that its manifest names."""


class RecipeMismatch(ModelError):
    """The bundle names a preprocessing recipe that this version does not have."""


class Transient(MsnodeError):
    """Worth another try later."""


class PeerUnreachable(Transient):
    """No connection to the peer, or it went away in the middle."""


class AssociationRejected(Transient):
    """The peer answered and refused the association (PS3.8 9.3.4)."""


class OutOfResources(Transient):
    """No room, here or at the peer."""


class ProcessDied(Transient):
    """The inference process ended by signal, time limit or memory limit."""


class ProcessKilled(Transient):
    """The inference process was killed from outside: that says nothing about its input."""


class DeliveryRefused(MsnodeError):
    """The destination will not take this object; final for that destination."""


class InvalidTransition(MsnodeError):
    """A job was asked to change into a state that its present state does not lead to: a bug."""


class StoredBytesChanged(MsnodeError):
    """Bytes in the store do not have the SHA-256 under which they were recorded."""


class ReadingFailed(MsnodeError):
    """An exception that nothing foresaw; the message is its type and traceback, without values."""


_BY_NAME = {
    each.__name__: each
    for each in (
        ConfigurationError, Rejected, NotReadable, NoEligibleSeries, AmbiguousSelection, SeveralPatients,
        NotAVolume, OutsideModelScope, ModelError, BundleMissing, BundleCorrupt, RecipeMismatch, Transient,
        PeerUnreachable, AssociationRejected, OutOfResources, ProcessDied, ProcessKilled,
        DeliveryRefused, InvalidTransition, ReadingFailed, StoredBytesChanged,
    )
}  # fmt: skip


def error_named(name: str) -> type[MsnodeError]:
    """The class of that name, for an error that comes from another process; `ReadingFailed` where none is."""
    return _BY_NAME.get(name, ReadingFailed)
