"""Readers that run in the worker's child: importable there, so they stand in a module of their own.

The reason of a reading is the id of the process that made it.
"""

import os
import signal
import time

from msnode.errors import ModelError
from msnode.reading.summary import ReadingStatus, ReadingSummary

PATIENT_NAME = "Doe^Jane"


def make_reader():
    memory = []

    def read(job_id: int) -> ReadingSummary:
        match job_id:
            case 1:
                pass
            case 2:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 3:
                time.sleep(600)
            case 4:
                memory.extend(bytearray(2**26) for _ in range(64))
                time.sleep(600)
            case 5:
                raise ModelError("the bundle is broken")
            case 6:
                raise KeyError(PATIENT_NAME)
            case 7:
                os.kill(os.getpid(), signal.SIGKILL)
        return ReadingSummary(ReadingStatus.PASSED_OVER, str(os.getpid()), "", "", "", "")

    return read
