/* Migrations: what the database has, what this program needs, and getting from one to the other. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"

/* Held by whoever migrates, so that several programs that start at once do not race. */
#define MIGRATE_LOCK "7117001"

static int own_level(void)
{
	must(pg_migration_count > 0);
	return pg_migrations[pg_migration_count - 1].number;
}

enum err_code pg_level_of(struct pg_conn *conn, struct pg_level *ret, struct err *err)
{
	PGresult *r;
	*ret = (struct pg_level){0};
	if (pg_exec(conn, "SELECT to_regclass('cairn.meta') IS NOT NULL", NULL, PG_ANSWER_MS, &r, NULL, err) !=
	    PG_DONE)
		return err_wrap(err, "looking for the schema \"cairn\"");
	ret->there = strcmp(PQgetvalue(r, 0, 0), "t") == 0;
	PQclear(r);
	if (!ret->there)
		return ERR_OK;
	if (pg_exec(conn,
		    "SELECT schema, needs, coalesce((to_jsonb(m) ->> 'restoring')::boolean, false), "
		    "to_jsonb(m) ->> 'lost_from' IS NOT NULL FROM cairn.meta m",
		    NULL, PG_ANSWER_MS, &r, NULL, err) != PG_DONE)
		return err_wrap(err, "reading the schema's level");
	enum err_code code = ERR_OK;
	if (PQntuples(r) != 1) {
		code = err_set(err, ERR_CORRUPT, "cairn.meta has %d rows instead of one", PQntuples(r));
	} else {
		ret->schema = (int)strtol(PQgetvalue(r, 0, 0), NULL, 10);
		ret->needs = (int)strtol(PQgetvalue(r, 0, 1), NULL, 10);
		ret->restoring = strcmp(PQgetvalue(r, 0, 2), "t") == 0;
		ret->lost = strcmp(PQgetvalue(r, 0, 3), "t") == 0;
	}
	PQclear(r);
	return code;
}

/* All that are missing, each in a transaction of its own. */
static enum err_code migrate_up(struct pg_conn *conn, struct err *err)
{
	for (size_t i = 0; i < pg_migration_count; i++) {
		const struct pg_migration *m = &pg_migrations[i];
		struct pg_level level;
		if (pg_run(conn, "BEGIN; SELECT pg_advisory_xact_lock(" MIGRATE_LOCK ")", err) != PG_DONE)
			return err->code;
		enum err_code code = pg_level_of(conn, &level, err);
		bool needed = !code && level.schema < m->number;
		if (needed && pg_run(conn, m->sql, err) != PG_DONE)
			code = err_wrap(err, "migration %s", m->name);
		if (conn->c && pg_run(conn, code ? "ROLLBACK" : "COMMIT", code ? NULL : err) != PG_DONE && !code)
			code = err->code;
		if (code)
			return code;
		if (needed)
			log_info("applied a migration", LOG_STR("name", m->name));
	}
	return ERR_OK;
}

enum err_code pg_make_ready(struct pg_conn *conn, bool may_create, struct err *err)
{
	struct pg_level level;
	enum err_code code = pg_level_of(conn, &level, err);
	if (code)
		return code;
	if (!level.there && may_create) {
		struct err why = {0};
		if (migrate_up(conn, &why))
			return err_set(err, ERR_UNSUPPORTED,
				       "the database has no journal, and one cannot be made: %s. Run this once, as a "
				       "role that may create a schema: cairnd migrate up --storage URI",
				       why.text);
		code = pg_level_of(conn, &level, err);
		if (code)
			return code;
	}
	if (!level.there)
		return err_set(err, ERR_UNSUPPORTED, "the database has no journal: cairnd migrate up --storage URI");
	if (level.lost && !conn->pg->mending)
		return err_set(err, ERR_CONFLICT,
			       "this database has lost acknowledged history (cairn.meta says from where): bring the "
			       "right one back; or go on with this one: cairn accept-loss --storage URI --reason WHY");
	if (level.restoring && !conn->pg->mending)
		return err_set(err, ERR_CONFLICT,
			       "the database holds a restore that has not come to its end: DROP SCHEMA cairn "
			       "CASCADE, and restore again");
	if (level.needs > own_level())
		return err_set(err, ERR_UNSUPPORTED,
			       "the database's schema is of level %d and needs programs of level %d, this one is of "
			       "level %d: install a newer cairnd",
			       level.schema, level.needs, own_level());
	if (level.schema < own_level())
		return err_set(err, ERR_UNSUPPORTED,
			       "the database's schema is of level %d, this program needs %d: cairnd migrate up "
			       "--storage URI",
			       level.schema, own_level());
	return ERR_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static enum err_code tell_level(const struct pg_level *level, struct buf *out)
{
	if (!level->there)
		return buf_printf(out, "The database has no journal; this program's schema is of level %d.\n",
				  own_level());
	return buf_printf(out,
			  "The database's schema is of level %d and needs programs of level %d; this program's is of "
			  "level %d.\n",
			  level->schema, level->needs, own_level());
}

static enum err_code tell_migrations(const struct pg_level *level, struct buf *out)
{
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < pg_migration_count && !code; i++)
		code = buf_printf(out, "%s  %s\n", pg_migrations[i].name,
				  level->schema >= pg_migrations[i].number ? "applied" : "to be applied");
	return code;
}

static enum err_code migrate(struct pg_conn *conn, enum storage_migrate what, struct buf *out, struct err *err)
{
	struct pg_level before, after;
	enum err_code code = pg_connect_bare(conn, err);
	if (!code)
		code = pg_level_of(conn, &before, err);
	if (!code && before.needs > own_level())
		code = pg_make_ready(conn, false, err); /* says why not */
	if (!code && what == STORAGE_MIGRATE_UP) {
		code = migrate_up(conn, err);
		if (!code)
			code = pg_level_of(conn, &after, err);
		if (!code && (tell_level(&after, out) || tell_migrations(&after, out)))
			code = err_set(err, ERR_NOMEM, "no memory for what was done");
	} else if (!code && ((what == STORAGE_MIGRATE_STATUS && tell_level(&before, out)) ||
			     tell_migrations(&before, out))) {
		code = err_set(err, ERR_NOMEM, "no memory for what there is to do");
	}
	return code;
}

enum err_code pg_migrate(const struct storage_config *config, enum storage_migrate what, struct buf *out,
			 struct err *err)
{
	struct pg pg = {0};
	pg.writer = (struct pg_conn){.pg = &pg, .what = "migration"};
	enum err_code code = pg_target_set(&pg, config->location, err);
	if (!code)
		code = migrate(&pg.writer, what, out, err);
	pg_disconnect(&pg.writer);
	mem_free(pg.conninfo);
	return code;
}
