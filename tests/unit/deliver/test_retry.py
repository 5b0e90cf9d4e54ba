from msnode.deliver.retry import RetryPolicy


def test_delays_grow_to_the_longest_and_end_at_the_limit():
    policy = RetryPolicy(first_s=10, factor=2, max_s=100, limit=8)
    delays = [policy.delay(attempt, "deliver:1") for attempt in range(1, 9)]
    assert delays[-1] is None
    for delay, wanted in zip(delays[:-1], [10, 20, 40, 80, 100, 100, 100], strict=True):
        assert 0.9 * wanted <= delay <= 1.1 * wanted


def test_delays_are_the_same_for_one_key_and_differ_between_keys():
    policy = RetryPolicy()
    assert policy.delay(3, "a") == policy.delay(3, "a")
    assert len({policy.delay(3, key) for key in "abcdefgh"}) == 8


def test_a_very_late_attempt_has_a_delay():
    assert RetryPolicy(limit=10**9).delay(10**6, "a") <= 990
