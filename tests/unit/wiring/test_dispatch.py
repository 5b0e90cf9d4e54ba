from msnode.errors import OutOfResources
from msnode.wiring.dispatch import insistent


def test_a_workflow_is_run_again_until_the_record_can_be_used():
    calls, waits = [], []

    def run(job_id):
        calls.append(job_id)
        if len(calls) < 7:
            raise OutOfResources("the database does not answer")

    insistent(run, waits.append)(5)
    assert calls == [5] * 7
    assert waits == [0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
