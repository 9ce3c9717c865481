#include <config.h>

#include "postgres.h"

#include <criterion/criterion.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

void postgres_needed(void)
{
	const char *why = getenv("CAIRN_TEST_POSTGRES_WHY");
	if (!getenv("CAIRN_TEST_POSTGRES"))
		cr_skip_test("%s", why ? why : "no Postgres: run it by tests/postgres/with");
}

static PGconn *connect_to(const char *database)
{
	const char *names[] = {"host", "user", "dbname", NULL};
	const char *values[] = {getenv("CAIRN_TEST_POSTGRES"), "postgres", database, NULL};
	PGconn *c = PQconnectdbParams(names, values, 0);
	cr_assert_eq(PQstatus(c), CONNECTION_OK, "%s", PQerrorMessage(c));
	return c;
}

static const char *run(const char *database, const char *sql)
{
	static char field[256];
	PGconn *c = connect_to(database);
	PGresult *r = PQexec(c, sql);
	ExecStatusType status = PQresultStatus(r);
	cr_assert(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s: %s", sql, PQerrorMessage(c));
	snprintf(field, sizeof(field), "%s",
		 PQntuples(r) > 0 && PQnfields(r) > 0 ? PQgetvalue(r, 0, 0) : "");
	PQclear(r);
	PQfinish(c);
	return field;
}

void postgres_uri(struct span name, char *uri, size_t size)
{
	char sql[256];
	snprintf(sql, sizeof(sql), "SELECT 1 FROM pg_database WHERE datname = '%.*s'", SPAN_ARG(name));
	if (run("postgres", sql)[0] == '\0') {
		snprintf(sql, sizeof(sql), "CREATE DATABASE \"%.*s\"", SPAN_ARG(name));
		run("postgres", sql);
	}
	snprintf(uri, size, "postgres:host=%s user=postgres dbname=%.*s", getenv("CAIRN_TEST_POSTGRES"),
		 SPAN_ARG(name));
}

void postgres_drop(struct span name)
{
	char sql[256];
	snprintf(sql, sizeof(sql), "DROP DATABASE IF EXISTS \"%.*s\" WITH (FORCE)", SPAN_ARG(name));
	run("postgres", sql);
}

const char *postgres_do(struct span name, const char *sql)
{
	char database[64];
	snprintf(database, sizeof(database), "%.*s", SPAN_ARG(name));
	return run(database, sql);
}
