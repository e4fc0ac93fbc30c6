# Run once by PostgreSQL's image, as its superuser, in a new volume. The relay owns its database, and can do nothing else:
# no superuser; no other role may connect to its database or create in it.
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'END'
\getenv password RELAY_POSTGRES_PASSWORD
CREATE ROLE relay LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE relay OWNER relay TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE relay, postgres, template1 FROM PUBLIC;
\connect relay
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END
