from msnode.errors import OutOfResources
from msnode.services.dispatch import retry_until_recorded


def test_a_workflow_is_run_again_until_the_record_can_be_used():
    calls, waits = [], []

    def run(job_id):
        calls.append(job_id)
        if len(calls) < 7:
            raise OutOfResources("the database does not answer")

    retry_until_recorded(run, waits.append)(5)
    assert calls == [5] * 7
    assert waits == [0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
