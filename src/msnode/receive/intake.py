"""Assembles the messages of a peer, within a limit of memory and without polling.

pynetdicom's threads poll a thousand times a second, so that twenty idle associations take most of a
processor. Here they wait until something comes. The thread that reads a C-STORE request also serves it, and
reads nothing more before it is answered. Therefore an association holds one data set at most.
"""

from __future__ import annotations

import queue
import struct
import threading
import time
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from msnode.dicom import pynetdicom_seams as seams
from msnode.receive.command import command_pdus, store_command
from msnode.receive.held import Held
from msnode.receive.request import PROCESSING_FAILURE, StoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage

    from msnode.receive.command import StoreCommand
    from msnode.receive.guarded_socket import GuardedSocket
    from msnode.receive.held import Disk, Memory
    from msnode.receive.request import Answer, Data

_DATA_TRANSFER = "Sta6"  # PS3.8 Table 9-4
_CONNECTION_CLOSED, _INVALID_PDU = "Evt17", "Evt19"  # PS3.8 Table 9-10
_PDV = struct.Struct(">LBB")  # length, presentation context, control header
_LAST_DATA, _LAST_COMMAND = 2, 3  # PS3.8 E.2
_POLL_S, _MOMENT_S = 0.25, 0.001
_MESSAGES_WAITING = 2
_OTHER_BYTES = 16 * 2**20  # for a data set that is not stored, such as a list of a hundred thousand UIDs


class _NotifyingQueue(queue.Queue[Any]):
    """A queue that calls `notify` after something was put into it."""

    def __init__(self, notify: Callable[[], None], size: int = 0) -> None:
        super().__init__(size)
        self._notify = notify

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - the base's signature
        super().put(item, block, timeout)
        self._notify()


class _MessageQueue(_NotifyingQueue):
    """Complete messages for the association's thread, few at a time."""

    def __init__(self, notify: Callable[[], None], is_killed: Callable[[], bool]) -> None:
        super().__init__(notify, _MESSAGES_WAITING)
        self._is_killed = is_killed

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - the base's signature
        """Wait for room: a peer that does not wait for responses is not read any further."""
        while not self._is_killed():
            with suppress(queue.Full):
                super().put(item, timeout=_POLL_S)
                return


class Intake(DIMSEServiceProvider):
    """The DIMSE service provider of one association, and the reader of its data."""

    def __init__(
        self,
        association: Association,
        memory: Memory,
        store: Callable[[Association, StoreRequest], Answer],
        disk: Disk,
    ) -> None:
        super().__init__(association)
        self._memory = memory
        self._store = store
        self._disk = disk
        self._command = bytearray()
        self._storing: StoreCommand | None = None  # the request whose data set is being received
        self._held: Held | None = None  # the data set that is being received
        self._had_room = True
        self._woken = threading.Event()
        self._serving = threading.Lock()
        self.msg_queue = _MessageQueue(self.wake, self._is_killed)
        dul = association.dul
        dul.to_user_queue = _NotifyingQueue(self.wake)
        seams.poll_without_pause(dul)
        self._read_other = seams.replace_reader(dul, self._read)

    def wake(self) -> None:
        """Have the association's thread look for messages, releases and aborts."""
        self._woken.set()

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002 - the base's signature
        """The next message. Without `block`, as the association's thread asks, there may be none.

        That thread then looks for releases, aborts and idleness. It waits here until something of any kind
        has come or a moment has passed, and while a request is served.
        """
        if not block:
            if self.msg_queue.empty():
                self._woken.wait(_POLL_S)
                self._woken.clear()
            with self._serving:
                pass
        return super().get_msg(block=block)

    def release_memory(self) -> None:
        """Drop the message that is being received and release its memory. Also called at the end."""
        held, self._held = self._held, None
        if held is not None:
            held.drop()

    def _is_killed(self) -> bool:
        return seams.is_killed(self.assoc)

    def _read(self) -> None:
        """Read what has come. pynetdicom's own reader copies every byte eight times."""
        dul = self.assoc.dul
        connection = cast("GuardedSocket", dul.socket)
        try:
            while dul.state_machine.current_state == _DATA_TRANSFER:
                body = connection.next_data()
                if body is None:
                    break
                seams.restart_idle_timer(dul)
                self._take_values(body)
                if self._is_killed() or not (self._held and connection.ready):
                    return
        except OSError:
            dul.event_queue.put(_CONNECTION_CLOSED)
            return
        except ValueError:
            dul.event_queue.put(_INVALID_PDU)
            return
        self._read_other()

    def _take_values(self, body: memoryview) -> None:
        """Take the presentation data values of one PDU (PS3.8 9.3.5.1).

        Raises:
            ValueError: malformed, or not where a message may have such a value.
        """
        offset = 0
        while offset < len(body):
            try:
                length, context_id, control = _PDV.unpack_from(body, offset)
            except struct.error as error:
                raise ValueError("not a presentation data value") from error
            value = body[offset + _PDV.size : offset + 4 + length]
            offset += 4 + length
            if length < 2 or offset > len(body):  # noqa: PLR2004 - context and control
                raise ValueError("not a presentation data value")
            if control & 1:
                self._command += value
                if control & 2:
                    self._end_command(context_id)
            else:
                self._add_fragment(value)
                if control & 2:
                    self._end_message(context_id)

    def _end_command(self, context_id: int) -> None:
        """Handle a complete command."""
        if self._storing is not None or self._held:
            raise ValueError("a command in the middle of a data set")
        command_set = bytes(self._command)
        self._command.clear()
        self._storing = store_command(command_set)
        if self._storing is None:
            self._forward(context_id, _LAST_COMMAND, command_set)
        elif not self._storing.has_data_set:
            self._end_message(context_id)

    def _add_fragment(self, value: memoryview) -> None:
        """Keep a fragment of a data set, or none of it if there is no memory."""
        size = 0 if self._held is None else self._held.size
        if self._storing is None and (self.message is None or size > _OTHER_BYTES):
            raise ValueError("a data set that belongs to nothing, or is too long")
        if not self._had_room:
            return
        if self._held is None:
            self._held = Held(self._memory, self._disk if self._storing else None)
        self._had_room = self._held.take(value)
        if not self._had_room:
            self.release_memory()

    def _end_message(self, context_id: int) -> None:
        """Handle a complete message."""
        if self._storing is None:
            data = b"" if self._held is None else self._held.complete()
            cast("DIMSEMessage", self.message).data_set = BytesIO(data)
            self._forward(context_id, _LAST_DATA, b"")
        else:
            self._serve(context_id, self._storing)
            self._storing = None
        self._had_room = True
        self.release_memory()

    def _data_set(self) -> tuple[Data | None, BinaryIO | None]:
        """The data set and its file, as far as there is room for them; see `StoreRequest`."""
        if self._held is None:
            return (b"" if self._had_room else None), None
        try:
            return self._held.complete(), self._held.file
        except OSError:
            return None, None

    def _forward(self, context_id: int, control: int, value: bytes) -> None:
        """Pass a message that is not a C-STORE request to pynetdicom."""
        data = P_DATA()
        data.presentation_data_value_list.append((context_id, bytes((control, *value))))
        self.receive_primitive(data)

    def _serve(self, context_id: int, command: StoreCommand) -> None:
        """Serve a C-STORE request in the thread that read it, and send the response."""
        association = self.assoc
        # The association's own thread records the association first; the peer may be faster.
        while not (association.is_established or self._is_killed()):
            time.sleep(_MOMENT_S)
        if self._is_killed():
            return
        context = seams.accepted_context(association, context_id)
        if context is None:
            raise ValueError("a presentation context that was not accepted")
        request = StoreRequest(
            command.sop_class_uid,
            command.sop_instance_uid,
            str(context.transfer_syntax[0]),
            *self._data_set(),
        )
        status, comment = PROCESSING_FAILURE, ""
        try:
            with self._serving:
                answer = self._store(association, request)
            status, comment = answer.status, answer.comment
        finally:  # an error of ours is answered too, and ends the association
            del request  # it maps the file
            seams.restart_idle_timer(association.dul)  # the peer was waiting for us
            self.release_memory()
            response = command_pdus(context_id, command.response(status, comment), self.maximum_pdu_size)
            cast("GuardedSocket", association.dul.socket).send(response)
