/* The others: several programs may write to one database. After a commit of ours they are notified, and their
 * notices, or a look now and then, tell how far the log goes. One connection and one thread of its own. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/must.h"

#define NOTIFY_EVERY_US 2000
#define POLL_DEAF_US 20000   /* where notices do not come, as behind PgBouncer */
#define POLL_US 250000	     /* where they do */
#define LOSS_EVERY_US 2000000 /* it is tried to record a loss */

static int64_t now_us(void)
{
	return clock_mono(&clock_system).us;
}

void pg_watch_init(struct pg_watch *w)
{
	w->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(w->event >= 0);
}

void pg_watch_release(struct pg_watch *w)
{
	pg_disconnect(&w->conn);
	pg_params_release(&w->params);
	if (w->event >= 0)
		close(w->event);
}

static void wake(struct pg_watch *w)
{
	uint64_t one = 1;
	ssize_t n = write(w->event, &one, sizeof(one));
	must(n == sizeof(one) || errno == EAGAIN);
}

void pg_watch_tell(struct pg *pg)
{
	if (!atomic_exchange(&pg->watch.tell, true))
		wake(&pg->watch);
}

void pg_watch_end(struct storage *s)
{
	struct pg *pg = pg_of(s);
	atomic_store(&pg->closing, true);
	wake(&pg->watch);
}

/* Sends our notice. It comes back to us, too, if notices come at all. */
static enum pg_status tell_others(struct pg_watch *w, struct err *err)
{
	atomic_store(&w->tell, false);
	w->told_us = now_us();
	return pg_run(&w->conn, "SELECT set_config('synchronous_commit', 'off', true), pg_notify('cairn', '')",
		      err);
}

/* A new connection listens, and finds out whether it hears. */
static enum err_code begin(struct pg_watch *w, struct err *err)
{
	if (w->conn.c && PQstatus(w->conn.c) == CONNECTION_OK)
		return ERR_OK;
	w->hears = false;
	w->polled_us = 0;
	if (pg_connected(&w->conn, 0, err))
		return err->code;
	if (pg_run(&w->conn, "LISTEN cairn", err) != PG_DONE || tell_others(w, err) != PG_DONE)
		return err->code;
	return ERR_OK;
}

/* Have others sent a notice? */
static bool heard(struct pg_watch *w)
{
	bool others = false;
	PGnotify *n;
	while ((n = PQnotifies(w->conn.c))) {
		w->hears = true;
		others = others || n->be_pid != PQbackendPID(w->conn.c);
		PQfreemem(n);
	}
	return others;
}

static enum err_code look(struct pg *pg, struct err *err)
{
	struct pg_watch *w = &pg->watch;
	struct pg_known known;
	PGresult *r;
	int64_t position, commit_time;
	pg_known_get(pg, &known);
	pg_params_clear(&w->params);
	pg_param_int8(&w->params, (int64_t)known.head);
	w->polled_us = now_us();
	if (pg_exec(&w->conn,
		    "SELECT position, commit_time, bytes FROM cairn.record WHERE position >= $1::bigint "
		    "ORDER BY position DESC LIMIT 1",
		    &w->params, PG_ANSWER_MS, &r, NULL, err) != PG_DONE)
		return err->code;
	if (PQntuples(r) == 1 && pg_field_int8(r, 0, 0, &position) && pg_field_int8(r, 0, 1, &commit_time))
		pg_known_move(pg, (uint64_t)position + 1, (struct wall_time){commit_time}, pg_field(r, 0, 2));
	PQclear(r);
	return ERR_OK;
}

static void wait_until(struct pg_watch *w, int64_t until_us)
{
	struct pollfd fds[2] = {{.fd = w->event, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	int64_t left = until_us - now_us();
	uint64_t events;
	if (w->conn.c)
		fds[1].fd = PQsocket(w->conn.c);
	if (left > 0)
		poll(fds, 2, (int)((left + 999) / 1000));
	ssize_t n = read(w->event, &events, sizeof(events));
	must(n == sizeof(events) || errno == EAGAIN);
	if (w->conn.c && fds[1].revents)
		PQconsumeInput(w->conn.c);
}

/* One turn; *ret_until is when there will be something to do without being woken. */
static enum err_code turn(struct pg *pg, int64_t *ret_until, struct err *err)
{
	struct pg_watch *w = &pg->watch;
	if (begin(w, err))
		return err->code;
	int64_t now = now_us(), may_tell = w->told_us + NOTIFY_EVERY_US;
	if (atomic_load(&w->tell) && now >= may_tell && tell_others(w, err) != PG_DONE)
		return err->code;
	bool others = heard(w);
	int64_t poll_at = w->polled_us + (w->hears ? POLL_US : POLL_DEAF_US);
	if (others || now >= poll_at) {
		if (look(pg, err))
			return err->code;
		poll_at = w->polled_us + (w->hears ? POLL_US : POLL_DEAF_US);
	}
	*ret_until = atomic_load(&w->tell) && may_tell < poll_at ? may_tell : poll_at;
	return ERR_OK;
}

enum err_code pg_watch(struct storage *s, uint64_t known, int64_t timeout_ms, uint64_t *ret_head, struct err *err)
{
	struct pg *pg = pg_of(s);
	struct pg_watch *w = &pg->watch;
	int64_t deadline_us = now_us() + timeout_ms * 1000;
	for (;;) {
		struct pg_known here;
		struct err now = {0};
		int64_t until = deadline_us;
		enum err_code code = atomic_load(&pg->closing) ? ERR_OK : turn(pg, &until, &now);
		if (!code || atomic_load(&pg->closing))
			atomic_store(&pg->reachable, true);
		else
			atomic_store(&pg->reachable, false);
		if (atomic_load(&pg->lost) && !pg->loss_recorded && !atomic_load(&pg->closing) &&
		    now_us() >= pg->loss_again_us) {
			pg_record_loss(pg, &w->conn);
			pg->loss_again_us = now_us() + LOSS_EVERY_US;
		}
		pg_known_get(pg, &here);
		if (here.head > known || now_us() >= deadline_us || atomic_load(&pg->closing)) {
			*ret_head = here.head;
			return code ? err_set(err, code, "%s", now.text) : ERR_OK;
		}
		if (code && w->conn.not_before.us > now_us() && w->conn.not_before.us < until)
			until = w->conn.not_before.us;
		wait_until(w, until < deadline_us ? until : deadline_us);
	}
}

bool pg_ready(struct storage *s, struct err *err)
{
	struct pg *pg = pg_of(s);
	if (atomic_load(&pg->lost)) {
		pthread_mutex_lock(&pg->lock);
		err_set(err, ERR_UNAVAILABLE, "%s", pg->lost_text);
		pthread_mutex_unlock(&pg->lock);
		return false;
	}
	if (!atomic_load(&pg->reachable)) {
		err_set(err, ERR_UNAVAILABLE, "Postgres cannot be reached");
		return false;
	}
	return true;
}
