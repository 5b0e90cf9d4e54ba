"""What the seams rely on in pynetdicom: a new version that moves a private member fails here, by name."""

import ast
import inspect
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import AE
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

import msnode
from msnode.dicom import pynetdicom_seams as seams

PACKAGE = Path(msnode.__file__).parent
MEMBERS = {
    # private member: functions of pynetdicom that must still use it
    "_create_socket": (AE.associate,),
    "_create_association": (RequestHandler.handle,),
    "_kill": (Association.kill, Association._run_reactor),
    "_accepted_cx": (ACSE._negotiate_as_acceptor, ACSE._negotiate_as_requestor),
    "_serve_request": (Association._run_reactor,),
    "_reactor_checkpoint": (Association._run_reactor, Association.send_c_store),
    "_read_pdu_data": (DULServiceProvider._is_transport_event,),
    "_run_loop_delay": (DULServiceProvider.run_reactor,),
    "_idle_timer": (DULServiceProvider.idle_timer_expired,),
    "_is_connected": (AssociationSocket.close,),
}
MOVED = (
    "pynetdicom {version} no longer uses the private member {member} in {user}. Read the release, then change"
    " msnode/dicom/pynetdicom_seams.py and this table."
)


@pytest.mark.parametrize("member", MEMBERS)
def test_pynetdicom_still_uses_the_member_where_the_seam_expects_it(member):
    for user in MEMBERS[member]:
        names = {n.attr for n in ast.walk(ast.parse(source(user))) if isinstance(n, ast.Attribute)}
        assert member in names, MOVED.format(
            version=pynetdicom.__version__, member=member, user=user.__qualname__
        )


def source(function):
    return inspect.cleandoc("\n" + inspect.getsource(function))


@pytest.fixture
def association():
    return Association(AE(), "requestor")


@pytest.mark.parametrize(
    ("owner", "member"),
    [
        ("association", "_kill"),
        ("association", "_accepted_cx"),
        ("association", "_serve_request"),
        ("association", "_reactor_checkpoint"),
        ("dul", "_read_pdu_data"),
        ("dul", "_run_loop_delay"),
        ("dul", "_idle_timer"),
    ],
)
def test_the_member_stands_where_the_seam_looks(association, owner, member):
    found = association if owner == "association" else association.dul
    assert hasattr(found, member), MOVED.format(
        version=pynetdicom.__version__, member=member, user=type(found).__name__
    )


def test_what_the_seams_do(association):
    assert not seams.is_killed(association)
    seams.mark_killed(association)
    assert seams.is_killed(association)
    assert seams.accepted_context(association, 1) is None
    assert not seams.awaits_response(association)
    association._reactor_checkpoint.clear()
    assert seams.awaits_response(association)
    calls = []
    former = seams.replace_request_service(association, lambda *_: calls.append("serve"))
    association._serve_request(None, 1)
    assert former.__func__ is Association._serve_request
    former = seams.replace_reader(association.dul, lambda: calls.append("read"))
    association.dul._read_pdu_data()
    assert former.__func__ is DULServiceProvider._read_pdu_data
    assert calls == ["serve", "read"]
    seams.restart_idle_timer(association.dul)
    seams.poll_without_pause(association.dul)
    assert association.dul._run_loop_delay == 0


def test_the_base_classes_are_those_that_pynetdicom_uses():
    assert seams.SocketKeepingEntity._create_socket is not AE._create_socket
    assert "request_handler" in inspect.signature(AssociationServer.__init__).parameters


def test_no_other_module_touches_a_private_member_of_pynetdicom():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
        if touched := names & MEMBERS.keys():
            found[path.relative_to(PACKAGE).as_posix()] = touched
    assert found == {"dicom/pynetdicom_seams.py": MEMBERS.keys()}
