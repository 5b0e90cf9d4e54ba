"""Messages put together from what a peer sends, within the memory of the node, and without looking for them.

pynetdicom's threads look a thousand times a second whether something has come: twenty idle associations
take most of a processor. Here they wait for it. A C-STORE request is served by the thread that read it,
which reads nothing more before that is answered: so one association holds one data set at most.
"""

from __future__ import annotations

import queue
import struct
import threading
import time
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from msnode.dicom import pynetdicom_seams as seams
from msnode.receive.command import command_pdus, store_command
from msnode.receive.request import PROCESSING_FAILURE, StoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage

    from msnode.receive.command import StoreCommand
    from msnode.receive.guarded_socket import GuardedSocket
    from msnode.receive.request import Answer

_DATA_TRANSFER = "Sta6"  # PS3.8 Table 9-4
_CONNECTION_CLOSED, _INVALID_PDU = "Evt17", "Evt19"  # PS3.8 Table 9-10
_PDV = struct.Struct(">LBB")  # length, presentation context, control header
_LAST_DATA, _LAST_COMMAND = 2, 3  # PS3.8 E.2
_LOOK_S, _MOMENT_S = 0.25, 0.001
_MESSAGES_WAITING = 2
_FRAGMENT_BYTES = 256  # what Python takes to keep one, however small
_OTHER_BYTES = 16 * 2**20  # of a data set that is not to be stored, such as a list of a hundred thousand UIDs


class Memory:
    """Bytes of data sets that all associations hold together, up to a bound."""

    def __init__(self, allowed_bytes: int) -> None:
        self._free = allowed_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Have so many bytes more; False, and nothing, where there are not so many."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def give_back(self, count: int) -> None:
        """They are held no longer."""
        with self._lock:
            self._free += count


class _Announcing(queue.Queue[Any]):
    """A queue that says when something is put into it."""

    def __init__(self, announce: Callable[[], None], size: int = 0) -> None:
        super().__init__(size)
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - the base's signature
        super().put(item, block, timeout)
        self._announce()


class _Messages(_Announcing):
    """Complete messages on their way to the association's thread."""

    def __init__(self, announce: Callable[[], None], is_over: Callable[[], bool]) -> None:
        super().__init__(announce, _MESSAGES_WAITING)
        self._is_over = is_over

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - the base's signature
        """A peer that sends on without waiting for answers is not read any further."""
        while not self._is_over():
            with suppress(queue.Full):
                super().put(item, timeout=_LOOK_S)
                return


class Intake(DIMSEServiceProvider):
    """The DIMSE service provider of one association, and the reader of its data."""

    def __init__(
        self, association: Association, memory: Memory, store: Callable[[Association, StoreRequest], Answer]
    ) -> None:
        super().__init__(association)
        self._memory = memory
        self._store = store
        self._command = bytearray()
        self._storing: StoreCommand | None = None  # whose data set is being received
        self._fragments: list[memoryview] | None = []  # None: there was no memory for them
        self._held = 0
        self._something = threading.Event()
        self._serving = threading.Lock()
        self.msg_queue = _Messages(self.wake, self._is_over)
        dul = association.dul
        dul.to_user_queue = _Announcing(self.wake)
        seams.poll_without_pause(dul)
        self._read_other = seams.replace_reader(dul, self._read)

    def wake(self) -> None:
        """Have the association's thread look."""
        self._something.set()

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002 - the base's signature
        """The next message; without `block`, as the association's thread asks, there may be none.

        That thread looks for releases, aborts and idleness afterwards, so it is kept here until there is
        something of any kind, or a moment has passed; and while a request is served.
        """
        if not block:
            if self.msg_queue.empty():
                self._something.wait(_LOOK_S)
                self._something.clear()
            with self._serving:
                pass
        return super().get_msg(block=block)

    def let_go(self) -> None:
        """What the association holds of a message is held no longer; also when it ends."""
        self._fragments = []
        self._memory.give_back(self._held)
        self._held = 0

    def _is_over(self) -> bool:
        return seams.is_killed(self.assoc)

    def _read(self) -> None:
        """Read what has come, in place of pynetdicom, which copies every byte eight times."""
        dul = self.assoc.dul
        connection = cast("GuardedSocket", dul.socket)
        try:
            while dul.state_machine.current_state == _DATA_TRANSFER:
                body = connection.next_data()
                if body is None:
                    break
                seams.restart_idle_timer(dul)
                self._take(body)
                if self._is_over() or not (self._held and connection.ready):
                    return
        except OSError:
            dul.event_queue.put(_CONNECTION_CLOSED)
            return
        except ValueError:
            dul.event_queue.put(_INVALID_PDU)
            return
        self._read_other()

    def _take(self, body: memoryview) -> None:
        """Take the presentation data values of one PDU (PS3.8 9.3.5.1).

        Raises:
            ValueError: they are none, or no message begins so.
        """
        offset = 0
        while offset < len(body):
            try:
                length, context_id, control = _PDV.unpack_from(body, offset)
            except struct.error as error:
                raise ValueError("no presentation data value") from error
            value = body[offset + _PDV.size : offset + 4 + length]
            offset += 4 + length
            if length < 2 or offset > len(body):  # noqa: PLR2004 - context and control
                raise ValueError("no presentation data value")
            if control & 1:
                self._command += value
                if control & 2:
                    self._begin(context_id)
            else:
                self._keep(value)
                if control & 2:
                    self._end(context_id)

    def _begin(self, context_id: int) -> None:
        """A command is complete."""
        if self._storing is not None or self._held:
            raise ValueError("a command in the middle of a data set")
        command_set = bytes(self._command)
        self._command.clear()
        self._storing = store_command(command_set)
        if self._storing is None:
            self._hand_on(context_id, _LAST_COMMAND, command_set)
        elif not self._storing.has_data_set:
            self._end(context_id)

    def _keep(self, value: memoryview) -> None:
        if self._storing is None and (self.message is None or self._held > _OTHER_BYTES):
            raise ValueError("a data set that belongs to nothing, or is too long")
        if self._fragments is None:
            return
        cost = len(value) + _FRAGMENT_BYTES
        if self._memory.take(cost):
            self._held += cost
            self._fragments.append(value)
        else:
            self.let_go()
            self._fragments = None

    def _end(self, context_id: int) -> None:
        """A message is complete."""
        data = None if self._fragments is None else b"".join(self._fragments)
        self._fragments = []
        if self._storing is None:
            cast("DIMSEMessage", self.message).data_set = BytesIO(data or b"")
            self._hand_on(context_id, _LAST_DATA, b"")
        else:
            self._serve(context_id, self._storing, data)
            self._storing = None
        self.let_go()

    def _hand_on(self, context_id: int, control: int, value: bytes) -> None:
        """Have pynetdicom do what it does with a message that is not a request to store."""
        data = P_DATA()
        data.presentation_data_value_list.append((context_id, bytes((control, *value))))
        self.receive_primitive(data)

    def _serve(self, context_id: int, command: StoreCommand, data: bytes | None) -> None:
        """Serve a C-STORE request in the thread that read it, and answer."""
        association = self.assoc
        # The peer may be faster than the association's own thread, which writes it down first.
        while not (association.is_established or self._is_over()):
            time.sleep(_MOMENT_S)
        if self._is_over():
            return
        context = seams.accepted_context(association, context_id)
        if context is None:
            raise ValueError("a presentation context that was not accepted")
        request = StoreRequest(
            command.sop_class_uid,
            command.sop_instance_uid,
            str(context.transfer_syntax[0]),
            data,
        )
        status, comment = PROCESSING_FAILURE, ""
        try:
            with self._serving:
                answer = self._store(association, request)
            status, comment = answer.status, answer.comment
        finally:  # a mistake of ours is answered too, and ends the association
            seams.restart_idle_timer(association.dul)  # the peer was waiting for us
            self.let_go()
            response = command_pdus(context_id, command.response(status, comment), self.maximum_pdu_size)
            cast("GuardedSocket", association.dul.socket).send(response)
