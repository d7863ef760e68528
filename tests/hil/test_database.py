from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from hil.database import Database, shown
from hil.errors import UsageError
from hil.store import Store
from tests.hil.stored_measurements import ONE

if TYPE_CHECKING:
    from tests.hil.postgres import PostgresServer


def test_a_folder_or_a_kind_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        Store(tmp_path / "none" / "s.db")
    with pytest.raises(UsageError, match="no folder"):
        Store(f"sqlite:///{tmp_path}/none/s.db")
    for url in ("nosuchdatabase://x/y", "mysql://x/y", "postgresql+nosuchdriver://x/y", "://", "postgresql://h:x/y"):
        with pytest.raises(UsageError, match="no such kind"):
            Store(url)


def test_a_name_is_a_name_and_no_option(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=ro&b #%20.db"
    with Store(odd) as store:
        store.add(ONE)
    assert odd.is_file()


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql+psycopg://me:hush@h:1/d?a=b", "postgresql+psycopg://me:***@h:1/d?a=b"),
        ("postgresql+psycopg://me:hu@sh@h/d", "postgresql+psycopg://me:***@h/d"),
        ("postgresql+psycopg://me:h/u?sh@h/d", "postgresql+psycopg://me:***@h/d"),
        ("postgresql+psycopg://:hush@h/d", "postgresql+psycopg://:***@h/d"),
        ("postgresql+psycopg://me@h/d?password=hush&a=b", "postgresql+psycopg://me@h/d?password=***&a=b"),
        ("postgresql+psycopg://me@h/d?sslpassword=hush", "postgresql+psycopg://me@h/d?sslpassword=***"),
        ("postgresql+psycopg://me@h:1/d", "postgresql+psycopg://me@h:1/d"),
        ("a/path:with@signs", "a/path:with@signs"),
    ],
)
def test_a_password_is_not_shown(url: str, seen: str) -> None:
    assert shown(url) == seen


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hu%40sh{}@127.0.0.1:1/d",
        "postgresql+psycopg://me:hu@sh{}@127.0.0.1:1/d",
        "postgresql+psycopg://me@127.0.0.1:1/d?password=hu%40sh{}",
        "postgresql+psycopg://me:hush{}:x/y@127.0.0.1:port/d",
        "nosuchdatabase://me:hush{}@h/d",
    ],
)
def test_no_message_holds_a_password(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UsageError) as caught:
        Store(url.format("SECRET"))
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        error = error.__cause__
    assert "\n" not in str(caught.value)


@pytest.mark.system
def test_the_password_is_libpqs_to_find(postgres_server: PostgresServer, tmp_path: Path, monkeypatch) -> None:
    from tests.hil.postgres import PASSWORD

    database = postgres_server.new_database()
    url = postgres_server.url(database, user="guest")
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no password supplied"):
        Store(url)
    with pytest.raises(UsageError, match="password authentication failed") as caught:
        Store(url.replace("guest@", "guest:wrong%20one@"))
    assert "wrong" not in str(caught.value)
    with Store(url.replace("guest@", f"guest:{quote(PASSWORD, safe='')}@")) as store:
        assert store.add(ONE)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with Store(url) as store:
        assert store.all() == [ONE]
    monkeypatch.delenv("PGPASSWORD")
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:{database}:guest:{PASSWORD.replace(':', chr(92) + ':')}\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    with Store(url) as store:
        assert store.all() == [ONE]


def test_sqlite_is_configured_to_survive_a_power_cut(tmp_path: Path) -> None:
    Store(tmp_path / "s.db").close()
    database = Database(tmp_path / "s.db", create=False)
    with database.transaction() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    database.close()
    assert asked == {"journal_mode": "wal", "synchronous": 2}  # 2: FULL


@pytest.mark.system
def test_postgresql_is_configured_to_survive_a_power_cut(postgres_server: PostgresServer) -> None:
    name = postgres_server.new_database()
    for configured, used in (("off", "on"), ("remote_apply", "remote_apply")):
        postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {configured}")
        database = Database(postgres_server.url(name), create=True)
        with database.transaction() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == used
        database.close()


@pytest.mark.system
def test_a_server_that_restarted_between_two_models_is_no_failure(postgres_server: PostgresServer) -> None:
    name = postgres_server.new_database()
    with Store(postgres_server.url(name)) as store:
        store.add(ONE)
        postgres_server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
        )
        assert store.all() == [ONE]
