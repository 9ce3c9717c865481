#include <config.h>

#include "cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/must.h"

#define LINE_MAX_BYTES (64 * 1024)
/* Read of one child before the others and signals have their turn. A pipe holds no more, so after an exit that is
 * all there is. */
#define TURN_BYTES (64 * 1024)
#define BACKOFF_MIN_MS 500
#define BACKOFF_MAX_MS 10000
#define LIVED_LONG_US (10 * 1000 * 1000)
#define TICK_MS 100

struct child {
	struct child_spec spec;
	pid_t pid;  /* 0: not running */
	pid_t group; /* its process group, which it may have left behind; 0: ended */
	int output; /* read end of the pipe that is its stdout and stderr; -1: closed */
	char *line; /* LINE_MAX_BYTES */
	size_t line_n;
	struct mono_time started;
	int64_t backoff_ms;
	bool restart; /* restart_at holds */
	struct mono_time restart_at;
};

struct supervisor {
	struct supervisor_ops ops;
	void *arg;
	int signals; /* signalfd */
	sigset_t old_mask;
	struct child children[SUPERVISOR_CHILDREN_MAX];
	size_t count;
	bool stopping;
};

struct supervisor *supervisor_new(const struct supervisor_ops *ops, void *arg)
{
	struct supervisor *s = mem_xalloc(sizeof(*s));
	s->ops = *ops;
	s->arg = arg;
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGCHLD);
	must(sigprocmask(SIG_BLOCK, &mask, &s->old_mask) == 0);
	/* What a child leaves behind is ours then: whether its group has ended is known. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	s->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	must(s->signals >= 0);
	return s;
}

size_t supervisor_add(struct supervisor *s, const struct child_spec *spec)
{
	must(s->count < SUPERVISOR_CHILDREN_MAX);
	struct child *c = &s->children[s->count];
	c->spec = *spec;
	c->output = -1;
	c->line = mem_xalloc(LINE_MAX_BYTES);
	c->backoff_ms = BACKOFF_MIN_MS;
	return s->count++;
}

pid_t supervisor_pid(const struct supervisor *s, size_t child)
{
	must(child < s->count);
	return s->children[child].pid;
}

/* --- starting ------------------------------------------------------------------------------------------ */

/* In the child: never returns. errno of a failed exec goes to the parent by `report`, which closes on exec.
 */
static _Noreturn void child_exec(const struct supervisor *s, const struct child *c, int output, int report)
{
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* nothing of ours outlives us */
	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	int null = open("/dev/null", O_RDONLY);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	for (size_t i = 0; c->spec.env && c->spec.env[i]; i++)
		putenv((char *)(uintptr_t)c->spec.env[i]);
	execvp(c->spec.argv[0], c->spec.argv);
	int failed = errno;
	ssize_t ignored = write(report, &failed, sizeof(failed));
	(void)ignored; /* the parent then sees an exit with 127 */
	_exit(127);
}

enum err_code supervisor_start(struct supervisor *s, size_t child, struct err *err)
{
	must(child < s->count);
	struct child *c = &s->children[child];
	must(c->pid == 0);
	int output[2], report[2];
	if (pipe2(output, O_CLOEXEC))
		return err_set_errno(err, ERR_IO, errno, "cannot start %s: pipe", c->spec.name);
	if (pipe2(report, O_CLOEXEC)) {
		int saved = errno;
		close(output[0]);
		close(output[1]);
		return err_set_errno(err, ERR_IO, saved, "cannot start %s: pipe", c->spec.name);
	}
	pid_t pid = fork();
	if (pid == 0)
		child_exec(s, c, output[1], report[1]);
	int fork_errno = errno, exec_errno = 0;
	close(output[1]);
	close(report[1]);
	ssize_t n = pid > 0 ? read(report[0], &exec_errno, sizeof(exec_errno)) : 0;
	close(report[0]);
	if (pid < 0 || n == (ssize_t)sizeof(exec_errno)) {
		close(output[0]);
		if (pid < 0)
			return err_set_errno(err, ERR_IO, fork_errno, "cannot start %s: fork", c->spec.name);
		waitpid(pid, NULL, 0);
		return err_set_errno(err, ERR_NOT_FOUND, exec_errno, "cannot run the %s's program \"%s\"",
				     c->spec.name, c->spec.argv[0]);
	}
	if (c->output >= 0) /* held open by a grandchild of the one before: that is read no more */
		close(c->output);
	fcntl(output[0], F_SETFL, O_NONBLOCK);
	c->output = output[0];
	c->line_n = 0;
	c->pid = c->group = pid;
	c->restart = false;
	c->started = clock_mono(&clock_system);
	return ERR_OK;
}

/* --- output, exits, restarts ------------------------------------------------------------------------------
 */

static void child_deliver(struct supervisor *s, size_t i, const char *line, size_t n)
{
	if (n > 0 && line[n - 1] == '\r')
		n--;
	s->ops.on_line(i, span_of(line, n), s->arg);
}

static void child_split(struct supervisor *s, size_t i)
{
	struct child *c = &s->children[i];
	size_t start = 0;
	char *end;
	while ((end = memchr(c->line + start, '\n', c->line_n - start)) != NULL) {
		child_deliver(s, i, c->line + start, (size_t)(end - (c->line + start)));
		start = (size_t)(end - c->line) + 1;
	}
	memmove(c->line, c->line + start, c->line_n - start);
	c->line_n -= start;
	if (c->line_n == LINE_MAX_BYTES) {
		child_deliver(s, i, c->line, c->line_n);
		c->line_n = 0;
	}
}

static void child_read(struct supervisor *s, size_t i)
{
	struct child *c = &s->children[i];
	size_t total = 0;
	while (c->output >= 0 && total < TURN_BYTES) {
		ssize_t n = read(c->output, c->line + c->line_n, LINE_MAX_BYTES - c->line_n);
		if (n > 0) {
			total += (size_t)n;
			c->line_n += (size_t)n;
			child_split(s, i);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			close(c->output);
			c->output = -1;
			if (c->line_n > 0)
				child_deliver(s, i, c->line, c->line_n);
			c->line_n = 0;
		} else if (errno == EAGAIN) {
			return;
		}
	}
}

/* Returns after how long. */
static int64_t child_restart_later(struct child *c, struct mono_time now)
{
	int64_t wait_ms = c->backoff_ms;
	c->backoff_ms = wait_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : wait_ms * 2;
	c->restart = true;
	c->restart_at.us = now.us + wait_ms * 1000;
	return wait_ms;
}

static void child_exited(struct supervisor *s, size_t i, int status)
{
	struct child *c = &s->children[i];
	child_read(s, i);
	c->pid = 0;
	struct mono_time now = clock_mono(&clock_system);
	if (mono_since_us(now, c->started) >= LIVED_LONG_US)
		c->backoff_ms = BACKOFF_MIN_MS;
	if (!s->stopping)
		s->ops.on_exit(i, status, child_restart_later(c, now), s->arg);
}

/* What a dead child has started would keep its port and answer in its place: it is ended too. While all is
 * being stopped it has the child's grace (child_end). */
static void group_end(struct supervisor *s, struct child *c)
{
	if (s->stopping)
		return;
	kill(-c->group, SIGKILL);
	c->group = 0;
}

static void reap(struct supervisor *s)
{
	for (;;) {
		siginfo_t dead = {0};
		size_t i = 0;
		int status;
		/* Until it is waited for, its process id is nobody else's. */
		if (waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) || dead.si_pid == 0)
			return;
		while (i < s->count && s->children[i].pid != dead.si_pid)
			i++;
		if (i < s->count)
			group_end(s, &s->children[i]);
		must(waitpid(dead.si_pid, &status, 0) == dead.si_pid);
		if (i < s->count)
			child_exited(s, i, status);
	}
}

static void restart_due(struct supervisor *s)
{
	struct mono_time now = clock_mono(&clock_system);
	for (size_t i = 0; i < s->count; i++) {
		struct child *c = &s->children[i];
		struct err err = {0};
		if (!c->restart || now.us < c->restart_at.us)
			continue;
		c->restart = false;
		if (!supervisor_start(s, i, &err))
			continue;
		/* A program that is just being built is away for a moment. */
		char *text = mem_xprintf("%s; trying again in %.1f s", err.text,
					 (double)child_restart_later(c, now) / 1000);
		s->ops.on_line(i, span_str(text), s->arg);
		mem_free(text);
	}
}

/* Waits at most timeout_ms for output, an exit or a signal, and deals with it. */
static void supervisor_turn(struct supervisor *s, int timeout_ms)
{
	struct pollfd fds[SUPERVISOR_CHILDREN_MAX + 1];
	size_t owner[SUPERVISOR_CHILDREN_MAX + 1], n = 1;
	fds[0] = (struct pollfd){.fd = s->signals, .events = POLLIN};
	for (size_t i = 0; i < s->count; i++) {
		if (s->children[i].output < 0)
			continue;
		owner[n] = i;
		fds[n++] = (struct pollfd){.fd = s->children[i].output, .events = POLLIN};
	}
	if (poll(fds, n, timeout_ms) < 0)
		return; /* EINTR: the caller turns again */
	for (size_t k = 1; k < n; k++)
		if (fds[k].revents)
			child_read(s, owner[k]);
	struct signalfd_siginfo info;
	while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM)
			s->stopping = true;
	reap(s);
}

void supervisor_run(struct supervisor *s)
{
	while (!s->stopping) {
		supervisor_turn(s, TICK_MS);
		if (s->stopping)
			break;
		restart_due(s);
		s->ops.on_tick(s->arg);
	}
}

void supervisor_stop(struct supervisor *s)
{
	s->stopping = true;
}

static void child_end(struct supervisor *s, size_t i)
{
	struct child *c = &s->children[i];
	struct mono_time start = clock_mono(&clock_system);
	bool killed = false;
	if (c->group > 0)
		kill(-c->group, SIGTERM);
	/* Others of the group may be dead and waited for by nobody: that is not waited for here either. */
	while (c->pid > 0 || (!killed && c->group > 0 && kill(-c->group, 0) == 0)) {
		if (mono_since_us(clock_mono(&clock_system), start) > c->spec.stop_grace_ms * 1000) {
			kill(-c->group, SIGKILL);
			killed = true;
		}
		supervisor_turn(s, 20);
	}
	child_read(s, i);
	if (c->output >= 0)
		close(c->output);
	mem_free(c->line);
}

void supervisor_free(struct supervisor *s)
{
	s->stopping = true;
	for (size_t i = s->count; i > 0; i--)
		child_end(s, i - 1);
	close(s->signals);
	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	mem_free(s);
}
