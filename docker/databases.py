"""`python -m docker.databases`: makes Label Studio's and carcond's database, each with its own user. Safe to repeat."""

import psycopg
from psycopg import sql

from docker.passwords import SECRETS_DIR, load_passwords

# Database and its owner, who have one name -> the key of the owner's password.
_DATABASES = {"label_studio": "label_studio_database", "carcond": "carcond_database"}


def main() -> None:
    """Create missing databases and users, and update the users' passwords."""
    passwords = load_passwords(SECRETS_DIR)
    address = psycopg.conninfo.make_conninfo(
        host="postgres", user="postgres", password=passwords["postgres"], dbname="postgres", connect_timeout=10
    )
    with psycopg.connect(address, autocommit=True) as connection:
        for name, key in _DATABASES.items():
            _make_user(connection, name, passwords[key])
            _make_database(connection, name)
    print(f"databases are there: {', '.join(_DATABASES)}")


def _make_user(connection: psycopg.Connection, name: str, password: str) -> None:
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    verb = sql.SQL("ALTER" if known else "CREATE")
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(name), sql.Literal(password))
    )


def _make_database(connection: psycopg.Connection, name: str) -> None:
    database = sql.Identifier(name)
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, database))
    # Otherwise each of the two users could read the other's database.
    connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))


if __name__ == "__main__":
    main()
