"""A real PostgreSQL server for a test: a cluster of its own on a free port, durable as it comes.

PostgreSQL does not run as root: the Debian package's user `postgres` runs it then.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from support.environment import peer
from support.peers import free_port, wait_until

_USER = "msnode"
_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder inside has a name that nobody else knows
_ROOM = 2 * 2**30
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer:
    """A running server; `stop` and `start` are a restart under the same address."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.port = free_port()
        self._programs = Path(peer("postgres")).parent
        self._folder = folder
        self._log = log
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self.url = ""

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def admin_url(self) -> str:
        """The server's own database, as libpq takes it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make the cluster, start it, and make the database at `url`."""
        made = self._popen(
            "initdb", "--pgdata", self._data, "--username", _USER, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions", "--no-sync",
        ).wait(timeout=120)  # fmt: skip
        assert made == 0, f"initdb failed: {self._log.read_text()[-2000:]}"
        self.start()
        self.url = self.new_database()

    def new_database(self, template: str | None = None) -> str:
        """URL of a new database: empty, or a copy of the one at the URL `template`, if nobody uses it."""
        name = f"msnode_{next(self._numbers)}"
        source = f" TEMPLATE {template.rpartition('/')[2]}" if template else ""
        self.execute(f"CREATE DATABASE {name}{source}")
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        """One statement of an administrator, outside any transaction."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self._popen(
            "postgres", "-D", self._data, "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
        )  # fmt: skip
        wait_until(self._answers, what="PostgreSQL ready", timeout_s=60)

    def stop(self, mode: str = "immediate") -> None:
        """End it: `immediate` as in a crash, `fast` and `smart` as an administrator does."""
        assert self._process is not None
        self._process.send_signal(_SIGNALS[mode])
        self._process.wait(timeout=60)

    def restart(self, mode: str = "immediate") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    @contextmanager
    def standby(self, tmp: Path) -> Iterator["PostgresServer"]:
        """A second server that has whatever this one has confirmed, and may be `promote`d."""
        with _server(tmp / "standby.log", self._folder.parent) as second:
            made = second._popen(
                "pg_basebackup", "--pgdata", second._data, "--dbname", self.admin_url,
                "--checkpoint", "fast", "--write-recovery-conf", "--no-sync",
            ).wait(timeout=120)  # fmt: skip
            assert made == 0, f"pg_basebackup failed: {second._log.read_text()[-2000:]}"
            second.start()
            self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.execute("SELECT pg_reload_conf()")
            yield second

    def promote(self) -> None:
        """Make a standby take writes."""
        self.execute("SELECT pg_promote()")

    def url_with(self, standby: "PostgresServer") -> str:
        """The address of this server's database at whichever of the two takes writes."""
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (self, standby))
        name = self.url.rpartition("/")[2]
        return f"postgresql+psycopg://{_USER}@/{name}?{hosts}&target_session_attrs=read-write"

    def close(self) -> None:
        """End it where it still runs; in order, as a crash leaves shared memory behind."""
        if self._process is not None and self._process.poll() is None:
            self.stop("fast")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"PostgreSQL ended: {self._log.read_text()[-2000:]}"
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        who = {} if self._account is None else {
            "user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": [],
        }  # fmt: skip
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [self._programs / program, *arguments],
                cwd=self._folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **who,
            )


@contextmanager
def _server(log: Path, root: Path | None) -> Iterator[PostgresServer]:
    """One without a cluster yet.

    Its data lie in a folder of their own: those of pytest are closed to other users, and the path of a
    socket has at most 107 bytes.
    """
    peer("postgres")
    folder = Path(tempfile.mkdtemp(prefix="msnode-postgres-", dir=root))
    server = PostgresServer(folder, log)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)


@contextmanager
def postgres_server(tmp: Path, *, in_memory: bool = False) -> Iterator[PostgresServer]:
    """A server with one empty database at `.url`; its log lies in `tmp`.

    Args:
        tmp: a folder, made where it is missing.
        in_memory: keep the data in memory where there is room. It answers alike; what is measured does not.
    """
    tmp.mkdir(parents=True, exist_ok=True)
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with _server(tmp / "postgres.log", _MEMORY if in_memory and has_room else None) as server:
        server.create()
        yield server
