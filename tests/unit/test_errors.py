import re

import pytest

from msnode import errors
from msnode.errors import MsnodeError, ReadingFailed, error_named


def every(base):
    for each in base.__subclasses__():
        yield each
        yield from every(each)


OURS = [each for each in every(MsnodeError) if each.__module__ == errors.__name__]


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_an_error_of_another_process_keeps_its_class(error):
    assert error_named(error.__name__) is error


def test_what_is_no_error_of_ours_is_a_failed_reading():
    assert error_named("KeyError") is ReadingFailed
    assert error_named("Path") is ReadingFailed


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_an_error_says_what_it_means_and_stands_in_the_tree(error):
    assert error.__doc__
    assert re.search(rf"─ {error.__name__}\b", errors.__doc__)
