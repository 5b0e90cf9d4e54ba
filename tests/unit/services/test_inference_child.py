import psutil
import pytest

from msnode.errors import ModelError, ProcessDied, ProcessKilled, ReadingFailed
from msnode.services.inference_child import InferenceChild, Limits
from support.worker_jobs import PATIENT_NAME, make_reader


@pytest.fixture(scope="module")
def child():
    child = InferenceChild(make_reader, Limits(seconds=8, rss_bytes=600 * 2**20))
    yield child
    child.stop()


def test_child_stays_between_jobs(child):
    assert child.read(1) == child.read(1)


@pytest.mark.parametrize(
    ("job", "how"),
    [(2, "SIGSEGV"), (3, "killed after 8 s"), (4, "killed past 600 MB")],
    ids=["crash", "hang", "memory"],
)
def test_a_child_that_dies_is_replaced(child, job, how):
    first = int(child.read(1).reason)
    with pytest.raises(ProcessDied, match=how):
        child.read(job)
    assert not psutil.pid_exists(first)
    assert int(child.read(1).reason) != first


def test_a_child_that_somebody_kills_is_told_from_one_that_dies(child):
    pid = int(child.read(1).reason)
    with pytest.raises(ProcessKilled, match="SIGKILL"):
        child.read(7)
    assert int(child.read(1).reason) != pid


def test_errors_keep_their_class(child):
    pid = int(child.read(1).reason)
    with pytest.raises(ModelError, match="the bundle is broken"):
        child.read(5)
    assert int(child.read(1).reason) == pid


def test_an_unexpected_error_names_the_place_but_no_value(child):
    with pytest.raises(ReadingFailed, match=r"KeyError at worker_jobs\.py:\d+") as caught:
        child.read(6)
    assert PATIENT_NAME not in str(caught.value)


def test_stop_ends_the_process():
    child = InferenceChild(make_reader, Limits(seconds=3, rss_bytes=2**30))
    pid = int(child.read(1).reason)
    child.stop()
    assert not psutil.pid_exists(pid)
