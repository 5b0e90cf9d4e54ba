"""Makes `node-<version>.tar.xz` for `test_upgrade.py`: what the imported msnode leaves when it is killed.

To be run in a checkout of that version: `PYTHONPATH=src:tests python .../make_archive.py FOLDER`.
"""

import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

import msnode
from support.commitment_peer import commitment_pacs, kept
from support.dicom_files import derived_uid, flair_series, head_pixels
from support.node import Node, RestartedNode, dicom_destination, write_config
from support.peers import free_port, listens, storescu, wait_until

OVERDUE_S = 120
"""More than is left to do here when the PACS is asked, and past whenever the archive is used."""
STATES = ("rejected", "delivered", "delivered", "delivering", "running", "queued", "receiving")
RULES = """[[rules]]
name = "emergency"
preset = "fast"
priority = "stat"
destinations = ["archive"]
[rules.when]
calling_ae = "ER-MR"
"""


def make(folder: Path) -> None:
    """Leave `data` (and `routing.toml` where the version knows rules) in an empty folder."""
    archive, once, port = folder / "archive", folder / "once", free_port()
    for each in (archive, once):
        each.mkdir()
    prepared = once / "commitment-prepared"  # while this is there, the fault does nothing
    prepared.touch()
    if find_spec("msnode.routing"):
        (folder / "routing.toml").write_text(RULES)
    env = {
        "MSNODE_NODE__HOST": "node",
        "MSNODE_FAULT": f"commitment-prepared:hang,reading-began:hang:{derived_uid('study', 'P5', '1')}",
        "MSNODE_FAULT_ONCE": str(once),
    }
    with commitment_pacs() as pacs:
        pacs.on_association = lambda request: () if len(pacs.requests) == 2 else (kept(request),)
        config = write_config(
            folder,
            f'[[destinations]]\nname = "archive"\ntype = "folder"\npath = "{archive}"\n'
            + dicom_destination("pacs", pacs.aet, pacs.port, verify="commitment")
            + f"commitment_deadline_s = {OVERDUE_S}\n",
            port=port,
        )
        node = Node(folder, port, config, folder / "serve.log")
        process = RestartedNode(config, node.log, env)
        process.keep()
        try:
            wait_until(lambda: listens(port), what="node", timeout_s=60)
            for number in (1, 2):
                _send(node, number)
            wait_until(lambda: len(pacs.requests) == 2, what="the request that is not reported on")
            prepared.unlink()
            _send(node, 3)
            wait_until(prepared.exists, what="a commitment request prepared")
            archive.rename(folder / "elsewhere")
            _send(node, 4)
            wait_until(lambda: len(pacs.requests) == 3 and len(pacs.answers) == 2, what="a report")
            _send(node, 5)
            wait_until((once / "reading-began").exists, what="a reading")
            _send(node, 6, calling="ER-MR")
            _send_without_end(node, 7)
            assert [job["state"] for job in reversed(node.jobs())] == list(STATES)
        finally:
            processes = process.processes()
            process.kill_all()
            psutil.wait_procs(processes)


def _draw(node: Node, number: int) -> list[Path]:
    """A study without a brain, which is answered by a report of rejection; with little noise, for xz."""
    pixels = head_pixels(12, 48, 48) // 64 * 64
    return flair_series(node.folder / f"study{number}", pixels=pixels, patient_id=f"P{number}")


def _send(node: Node, number: int, calling: str = "MR") -> None:
    """Send a study and wait until its job is where it is to be."""
    done = storescu(_draw(node, number), node.port, calling=calling)
    assert done.returncode == 0, done.stderr
    node.wait_for_job(STATES[number - 1])


def _send_without_end(node: Node, number: int) -> None:
    """Send a study, and keep the association open."""
    entity = AE(ae_title="MR")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="MSNODE")
    for path in _draw(node, number):
        assert association.send_c_store(dcmread(path)).Status == 0x0000


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return None if info.name == "data/cache" else info


if __name__ == "__main__":
    target = Path(sys.argv[1], f"node-{msnode.__version__}.tar.xz")
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        with tarfile.open(target, "w:xz", preset=9) as tar:
            for path in sorted(Path(name).glob("data")) + sorted(Path(name).glob("routing.toml")):
                tar.add(path, path.name, filter=_anonymous)
