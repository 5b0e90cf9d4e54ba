from msnode.receive.counted import Counted


def test_each_event_is_logged_once_a_minute_with_its_count() -> None:
    now = [0.0]
    counted = Counted(clock=lambda: now[0])
    assert counted.count("stranger") == 1
    assert [counted.count("stranger") for _ in range(5)] == [0] * 5
    assert counted.count("caller", "10.0.0.1") == 1
    assert counted.count("caller", "10.0.0.2") == 1
    now[0] = 60
    assert counted.count("stranger") == 6
    assert counted.count("stranger") == 0


def test_what_peers_send_does_not_pile_up() -> None:
    counted = Counted()
    for number in range(5000):
        counted.count("caller", str(number))
    assert len(counted._logged_at) <= 1000
