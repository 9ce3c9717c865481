/* Connections: made with bounds, checked before they are used, and asked with a deadline. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/random.h"

#define OLDEST_SERVER 130000

/* ---- where it is ----------------------------------------------------------------------------- */

static char *dup_text(struct span s)
{
	return mem_xdup(s.p ? s.p : (const uint8_t *)"", s.n);
}

enum err_code pg_target_set(struct pg *pg, struct span location, struct err *err)
{
	char *why = NULL;
	bool uri = span_starts(location, SPAN("//"));
	pg->conninfo = uri ? mem_xprintf("postgresql:%.*s", SPAN_ARG(location)) : dup_text(location);
	PQconninfoOption *options = PQconninfoParse(pg->conninfo, &why);
	if (options) {
		PQconninfoFree(options);
		return ERR_OK;
	}
	/* libpq's words may have the password in them: only that it cannot be read is told. */
	err_set(err, ERR_INVALID,
		"the Postgres storage's place cannot be read: write postgres://USER@HOST:PORT/DATABASE, "
		"\"postgres:host=HOST dbname=DATABASE\", or \"postgres:\" alone for what PGHOST, PGDATABASE and "
		"so on say");
	PQfreemem(why);
	return err->code;
}

/* Does the target or the environment say this? */
static bool said(const struct pg *pg, const char *keyword, const char *variable)
{
	bool is = getenv(variable) != NULL;
	PQconninfoOption *options = PQconninfoParse(pg->conninfo, NULL);
	for (PQconninfoOption *o = options; o && o->keyword && !is; o++)
		is = strcmp(o->keyword, keyword) == 0 && o->val;
	PQconninfoFree(options);
	return is;
}

/* What the target does not say: those before "dbname" give way to it. */
static PGconn *connect_target(const struct pg *pg)
{
	const char *names[16], *values[16];
	size_t n = 0;
	char seconds[16], user_ms[16];
	snprintf(seconds, sizeof(seconds), "%d", PG_CONNECT_S);
	snprintf(user_ms, sizeof(user_ms), "%d", PG_ANSWER_MS);
	const struct {
		const char *name, *variable, *value;
	} defaults[] = {
		{"connect_timeout", "PGCONNECT_TIMEOUT", seconds},
		{"target_session_attrs", "PGTARGETSESSIONATTRS", "read-write"},
		{"application_name", "PGAPPNAME", "cairnd"},
		{"tcp_user_timeout", "PGTCPUSERTIMEOUT", user_ms},
		{"keepalives_idle", "PGKEEPALIVESIDLE", "10"},
		{"keepalives_interval", "PGKEEPALIVESINTERVAL", "5"},
		{"keepalives_count", "PGKEEPALIVESCOUNT", "2"},
	};
	for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
		if (said(pg, defaults[i].name, defaults[i].variable))
			continue;
		names[n] = defaults[i].name;
		values[n++] = defaults[i].value;
	}
	names[n] = "dbname";
	values[n++] = pg->conninfo;
	names[n] = "client_encoding";
	values[n++] = "UTF8";
	names[n] = values[n] = NULL;
	must(n < ARRAY_LEN(names));
	return PQconnectdbParams(names, values, 1);
}

/* libpq's text is of several lines, the last with its end. */
static void one_line(char *to, size_t size, const char *from)
{
	size_t n = 0;
	while (*from && n + 1 < size) {
		if (*from == '\n' || *from == '\t') {
			if (n > 0 && to[n - 1] != ' ' && from[1])
				to[n++] = ' ';
		} else {
			to[n++] = *from;
		}
		from++;
	}
	to[n] = '\0';
}

static void on_notice(void *arg, const PGresult *r)
{
	struct pg_conn *conn = arg;
	const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
	if (!severity || strcmp(severity, "WARNING") != 0)
		return;
	conn->warned = true;
	one_line(conn->warning, sizeof(conn->warning), text ? text : "a warning");
	log_warn("the database warns", LOG_STR("connection", conn->what), LOG_STR("text", conn->warning));
}

void pg_disconnect(struct pg_conn *conn)
{
	if (conn->c)
		metric_add(METRIC_POSTGRES_CONNECTIONS, -1);
	PQfinish(conn->c);
	conn->c = NULL;
}

enum err_code pg_connect_bare(struct pg_conn *conn, struct err *err)
{
	char text[600];
	must(!conn->c);
	PGconn *c = connect_target(conn->pg);
	if (!c)
		return err_set(err, ERR_NOMEM, "no memory for a connection to Postgres");
	if (PQstatus(c) != CONNECTION_OK) {
		one_line(text, sizeof(text), PQerrorMessage(c));
		PQfinish(c);
		return err_set(err, ERR_UNAVAILABLE, "Postgres cannot be reached: %s", text);
	}
	if (PQserverVersion(c) < OLDEST_SERVER) {
		int version = PQserverVersion(c);
		PQfinish(c);
		return err_set(err, ERR_UNSUPPORTED, "Postgres is of version %d: 13 or later is needed",
			       version / 10000);
	}
	PQsetnonblocking(c, 1);
	conn->c = c;
	conn->warned = false;
	metric_add(METRIC_POSTGRES_CONNECTIONS, 1);
	PQsetNoticeReceiver(c, on_notice, conn);
	return ERR_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static int64_t now_us(void)
{
	return clock_mono(&clock_system).us;
}

/* Waits for the socket; false when the time is up. */
static bool wait_socket(PGconn *c, short events, int64_t deadline_us)
{
	for (;;) {
		int64_t left = deadline_us - now_us();
		if (left <= 0)
			return false;
		struct pollfd fd = {.fd = PQsocket(c), .events = events};
		int r = poll(&fd, 1, (int)((left + 999) / 1000));
		if (r > 0)
			return true;
		if (r < 0 && errno != EINTR)
			return false;
	}
}

static enum pg_status lost(struct pg_conn *conn, bool late, int64_t timeout_ms, struct err *err)
{
	char text[400];
	one_line(text, sizeof(text), PQerrorMessage(conn->c));
	if (late)
		err_set(err, ERR_UNAVAILABLE, "Postgres has not answered in %lld ms", (long long)timeout_ms);
	else
		err_set(err, ERR_UNAVAILABLE, "the connection to Postgres is lost: %s",
			text[0] ? text : "it was closed");
	pg_disconnect(conn);
	metric_add(METRIC_POSTGRES_LOST, 1);
	return PG_LOST;
}

/* All results of what was sent: the first that is an error, else the last. NULL: the connection is lost. */
static PGresult *collect(struct pg_conn *conn, int64_t deadline_us, bool *ret_late)
{
	PGresult *best = NULL;
	*ret_late = false;
	for (;;) {
		int flushed = PQflush(conn->c);
		if (flushed < 0)
			break;
		if (flushed == 0 && !PQisBusy(conn->c)) {
			PGresult *r = PQgetResult(conn->c);
			if (!r)
				return best;
			ExecStatusType status = PQresultStatus(best);
			if (best && status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
				PQclear(r);
			} else {
				PQclear(best);
				best = r;
			}
			continue;
		}
		if (!wait_socket(conn->c, (short)(POLLIN | (flushed ? POLLOUT : 0)), deadline_us)) {
			*ret_late = true;
			break;
		}
		if (!PQconsumeInput(conn->c))
			break;
	}
	PQclear(best);
	return NULL;
}

static bool send_statement(struct pg_conn *conn, const char *sql, const struct pg_params *params)
{
	const char *values[PG_PARAMS_MAX];
	int lengths[PG_PARAMS_MAX], formats[PG_PARAMS_MAX];
	if (!params)
		return PQsendQuery(conn->c, sql) != 0;
	for (size_t i = 0; i < params->count; i++) {
		values[i] = params->null[i] ? NULL : (const char *)params->bytes.p + params->at[i];
		lengths[i] = (int)(params->at[i + 1] - params->at[i]);
		formats[i] = 1;
	}
	return PQsendQueryParams(conn->c, sql, (int)params->count, NULL, values, lengths, formats, 1) != 0;
}

static enum pg_status refused(PGresult *r, char ret_state[6], struct err *err)
{
	char text[600];
	const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
	const char *hint = PQresultErrorField(r, PG_DIAG_MESSAGE_HINT);
	one_line(text, sizeof(text), PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY)
					     ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY)
					     : PQresultErrorMessage(r));
	if (ret_state)
		snprintf(ret_state, 6, "%s", state ? state : "");
	err_set(err, ERR_UNAVAILABLE, "Postgres refuses: %s (%s)%s%s", text, state ? state : "no SQLSTATE",
		hint ? "; " : "", hint ? hint : "");
	PQclear(r);
	return PG_REFUSED;
}

/* An error after which the session ends, so that the answer may not be about what was asked. */
static bool is_fatal(const PGresult *r)
{
	const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);
	return !severity || strcmp(severity, "ERROR") != 0;
}

enum pg_status pg_exec(struct pg_conn *conn, const char *sql, const struct pg_params *params,
		       int64_t timeout_ms, PGresult **ret, char ret_state[6], struct err *err)
{
	must(conn->c);
	if (params && params->failed) {
		if (ret_state)
			snprintf(ret_state, 6, "53200");
		err_set(err, ERR_NOMEM, "no memory for a statement of %zu bytes", params->bytes.n);
		return PG_REFUSED;
	}
	int64_t deadline_us = now_us() + timeout_ms * 1000;
	bool late = false;
	PGresult *r = send_statement(conn, sql, params) ? collect(conn, deadline_us, &late) : NULL;
	if (!r)
		return lost(conn, late, timeout_ms, err);
	ExecStatusType status = PQresultStatus(r);
	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
		*ret = r;
		return PG_DONE;
	}
	if (!is_fatal(r))
		return refused(r, ret_state, err);
	PQclear(r);
	return lost(conn, false, timeout_ms, err);
}

enum pg_status pg_run(struct pg_conn *conn, const char *sql, struct err *err)
{
	PGresult *r;
	enum pg_status status = pg_exec(conn, sql, NULL, PG_ANSWER_MS, &r, NULL, err);
	if (status == PG_DONE)
		PQclear(r);
	return status;
}

/* ---- connections that may be used ------------------------------------------------------------ */

static enum err_code check_settings(struct pg_conn *conn, struct err *err)
{
	PGresult *r;
	if (pg_exec(conn,
		    "SELECT current_setting('server_encoding') = 'UTF8', current_setting('fsync') = 'on', "
		    "current_setting('transaction_read_only') = 'off', "
		    "current_setting('transaction_isolation') = 'read committed', session_user::text",
		    NULL, PG_ANSWER_MS, &r, NULL, err) != PG_DONE)
		return err->code;
	static const char *const wrong[] = {
		"the database is not in UTF-8: make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
		"the server runs with fsync=off, so nothing it acknowledges is safe: set fsync=on",
		"the server is read-only (a standby?): name the primary, or all servers with "
		"target_session_attrs=read-write",
		"transactions are not READ COMMITTED by default: ALTER ROLE ... SET default_transaction_isolation "
		"= 'read committed'",
	};
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < ARRAY_LEN(wrong) && !code; i++)
		if (strcmp(PQgetvalue(r, 0, (int)i), "t") != 0)
			code = err_set(err, i == 2 ? ERR_UNAVAILABLE : ERR_UNSUPPORTED, "Postgres: %s", wrong[i]);
	PQclear(r);
	return code;
}

static enum err_code check_journal(struct pg_conn *conn, struct err *err)
{
	struct pg *pg = conn->pg;
	PGresult *r;
	struct pg_params none;
	pg_params_init(&none);
	enum pg_status status =
		pg_exec(conn, "SELECT id FROM cairn.journal", &none, PG_ANSWER_MS, &r, NULL, err);
	pg_params_release(&none);
	if (status != PG_DONE)
		return err->code;
	struct span id = PQntuples(r) == 1 ? pg_field(r, 0, 0) : (struct span){0};
	static const uint8_t nobody[UUID_BYTES];
	enum err_code code = ERR_OK;
	if (id.n != UUID_BYTES)
		code = err_set(err, ERR_CORRUPT, "cairn.journal has no row that says which journal this is");
	else if (memcmp(pg->journal_id, nobody, UUID_BYTES) == 0)
		memcpy(pg->journal_id, id.p, UUID_BYTES); /* the first connection, at opening */
	else if (memcmp(pg->journal_id, id.p, UUID_BYTES) != 0)
		code = err_set(err, ERR_UNAVAILABLE, "Postgres now has another journal than the one that was opened");
	PQclear(r);
	return code ? code : pg_check_known(conn, err);
}

static enum err_code connect_once(struct pg_conn *conn, struct err *err)
{
	enum err_code code = pg_connect_bare(conn, err);
	if (!code)
		code = check_settings(conn, err);
	if (!code)
		code = pg_make_ready(conn, false, err);
	if (!code)
		code = check_journal(conn, err);
	/* Everything is read in the order of an index. While statistics are old the planner would rather sort all of
	 * the log that is left, for each page; and what it then takes for expensive it compiles, for longer than it
	 * runs. */
	if (!code && pg_run(conn, "SET enable_sort = off; SET jit = off", err) != PG_DONE)
		code = err->code;
	if (code)
		pg_disconnect(conn);
	return code;
}

static void back_off(struct pg_conn *conn)
{
	unsigned shift = conn->failures < 8 ? conn->failures : 8;
	int64_t ms = (int64_t)PG_BACKOFF_MIN_MS << shift;
	if (ms > PG_BACKOFF_MAX_MS)
		ms = PG_BACKOFF_MAX_MS;
	ms = ms / 2 + (int64_t)(random_u64() % (uint64_t)(ms / 2 + 1));
	conn->failures++;
	conn->not_before.us = now_us() + ms * 1000;
}

enum err_code pg_connected(struct pg_conn *conn, int64_t wait_ms, struct err *err)
{
	struct pg *pg = conn->pg;
	int64_t deadline_us = now_us() + wait_ms * 1000;
	for (;;) {
		if (atomic_load(&pg->lost)) {
			pthread_mutex_lock(&pg->lock);
			err_set(err, ERR_UNAVAILABLE, "%s", pg->lost_text);
			pthread_mutex_unlock(&pg->lock);
			return err->code;
		}
		if (conn->c && PQstatus(conn->c) == CONNECTION_OK)
			return ERR_OK;
		pg_disconnect(conn);
		int64_t pause_us = conn->not_before.us - now_us();
		if (pause_us > 0 && now_us() + pause_us <= deadline_us && !atomic_load(&pg->closing)) {
			struct timespec t = {pause_us / 1000000, (pause_us % 1000000) * 1000};
			nanosleep(&t, NULL);
		}
		struct err now = {0};
		if (!connect_once(conn, &now)) {
			if (conn->failures > 0)
				log_info("connected to Postgres again", LOG_STR("connection", conn->what),
					 LOG_U64("attempts", conn->failures + 1));
			conn->failures = 0;
			return ERR_OK;
		}
		if (conn->failures == 0)
			log_warn("no connection to Postgres", LOG_STR("connection", conn->what), LOG_ERR(&now));
		back_off(conn);
		bool again = now.code == ERR_UNAVAILABLE && conn->not_before.us < deadline_us;
		if (!again || atomic_load(&pg->closing))
			return err_set(err, now.code, "%s", now.text);
	}
}

enum pg_status pg_ask(struct pg_conn *conn, const char *sql, const struct pg_params *params, PGresult **ret,
		      struct err *err)
{
	enum pg_status status = PG_LOST;
	for (int attempt = 0; attempt < 2 && status == PG_LOST; attempt++) {
		struct err now = {0};
		if (pg_connected(conn, PG_AGAIN_MS, &now))
			status = PG_REFUSED;
		else
			status = pg_exec(conn, sql, params, PG_ANSWER_MS, ret, NULL, &now);
		if (status != PG_DONE && (attempt == 1 || status == PG_REFUSED))
			err_set(err, now.code, "%s", now.text);
	}
	return status;
}
