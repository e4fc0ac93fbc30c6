"""What other roles of the server can do to the log.

PostgreSQL chooses among functions and operators of one name by the types of the arguments, and not by their owners: one
that another role adds to the log's schema may fit a statement of the relay better than PostgreSQL's own, and then runs
with the relay's rights.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

from ipaddress import ip_address

import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.postgres.session import asking
from relay.outbox.schema import METADATA

# These statements must not be misled themselves: their arguments have exactly the types of PostgreSQL's own operators.
_HERE = """
    pg_roles me, pg_namespace n, pg_database d
    WHERE me.rolname = current_user AND n.nspname = current_schema() AND d.datname = current_database()"""
# Superusers have every role. To a relay that is one this says nothing about the owner.
_TRUSTED = """(r.oid = me.oid OR NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER')
    OR pg_has_role(r.oid, n.nspowner, 'MEMBER') OR pg_has_role(r.oid, d.datdba, 'MEMBER'))"""
_FOREIGN = f"""
SELECT o.kind, o.name, n.nspname, r.rolname FROM pg_roles r, (
    SELECT 'table'::text, c.oid::regclass::text, c.relowner, c.relnamespace FROM pg_class c
        WHERE c.relname = ANY(%s::name[])
    UNION ALL SELECT 'function'::text, p.oid::regprocedure::text, p.proowner, p.pronamespace FROM pg_proc p
    UNION ALL SELECT 'operator'::text, p.oid::regoperator::text, p.oprowner, p.oprnamespace FROM pg_operator p
) o (kind, name, owner, space), {_HERE} AND o.space = n.oid AND r.oid = o.owner AND NOT {_TRUSTED}
ORDER BY 1, 2 LIMIT 1"""
_RIGHTS = f"""
SELECT quote_ident(n.nspname::text), quote_ident(d.datname::text), quote_ident(me.rolname::text),
    has_schema_privilege('public'::name, n.oid, 'CREATE'), has_database_privilege('public'::name, d.oid, 'CONNECT'),
    ARRAY(SELECT quote_ident(r.rolname::text) FROM pg_roles r
        WHERE has_schema_privilege(r.oid, n.oid, 'CREATE') AND NOT {_TRUSTED} ORDER BY 1)
FROM {_HERE}"""
_ENCRYPTED = ("require", "verify-ca", "verify-full")


def require_own(connection: sa.Connection, place: str) -> None:
    """Require that no other role owns a table of the log, or any function or operator in its schema.

    Others are all but the relay's role and its groups, superusers, and the owners of the schema and the database.
    Raises ``OutboxError``.
    """
    names = ["alembic_version", *sorted(METADATA.tables)]
    if foreign := connection.exec_driver_sql(_FOREIGN, (names,)).one_or_none():
        kind, name, schema, owner = foreign
        raise OutboxError(
            f"outbox {place}: the {kind} {name!r} in the schema {schema!r} belongs to the role {owner!r}, whose code "
            "could run as the relay: drop it, or make the schema's owner its owner"
        )


def exposures(url: sa.URL, place: str) -> list[str]:
    """What others could use against the log, each with its cure, or why that is unknown."""
    try:
        with asking(url, place) as (session, _):
            row = session.execute(_RIGHTS).fetchone()
            address, mode = session.info.hostaddr, session.info.get_parameters().get("sslmode", "")
    except OutboxError as error:
        return [f"the rights of other roles cannot be read: {error}"]
    found = []
    if row is not None:
        schema, database, me, anyone_creates, anyone_connects, creators = row
        granted = f"GRANT CREATE ON SCHEMA {schema} TO {me}"
        for role in ["PUBLIC"] if anyone_creates else creators:
            who = "every role" if anyone_creates else f"the role {role}"
            found.append(
                f"{who} may create functions that run as the relay: REVOKE CREATE ON SCHEMA {schema} FROM {role}; "
                f"{granted}"
            )
        if anyone_connects:
            found.append(
                "every role may connect to the database, and stop appends by taking the log's lock: "
                f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {me}"
            )
    if is_readable_on_the_way(address, mode):
        found.append(f"the connection to {address} need not be encrypted: add ?sslmode=verify-full to outbox.url")
    return found


def is_readable_on_the_way(address: str, sslmode: str) -> bool:
    """Whether a server at this IP address, empty for a socket, may be spoken to without TLS over a network."""
    return bool(address) and not ip_address(address).is_loopback and sslmode not in _ENCRYPTED
