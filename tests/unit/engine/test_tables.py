import threading

from msnode.engine.engine import Engine
from msnode.engine.tables import create_tables


def test_processes_that_start_at_once_make_the_tables_once(tmp_path, postgres):
    for address in (f"sqlite:///{tmp_path / 'm.db'}", postgres.new_database()):
        failed = []

        def start(address=address, failed=failed):
            try:
                create_tables(address)
            except Exception as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        Engine(address).stop()
