/* A small supervisor for `cairn dev`: starts child processes, reads their output line by line, starts them
 * again when they die, and stops them all. Plain POSIX, one thread, a poll() loop.
 *
 * A child that dies is started again after 0.5 s, doubling to 10 s while it dies young; one that has lived
 * 10 s starts from 0.5 s again. Children run in process groups of their own, so that Ctrl-C reaches only
 * the supervisor, which then ends them in the order in which they should end. What a child that died had
 * started in its group is killed before the child is started again. */
#ifndef CAIRN_CLI_SUPERVISOR_H
#define CAIRN_CLI_SUPERVISOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/span.h"

#define SUPERVISOR_CHILDREN_MAX 8

struct supervisor;

struct child_spec {
	const char *name;	 /* for messages */
	char *const *argv;	 /* ends with NULL; argv[0] is looked up on PATH */
	const char *const *env;	 /* "NAME=value", ends with NULL: added to our environment */
	int64_t stop_grace_ms;	 /* from SIGTERM to SIGKILL */
};

struct supervisor_ops {
	/* One line of a child's stdout or stderr, without its end; a long line comes in pieces of 64 KiB. */
	void (*on_line)(size_t child, struct span line, void *arg);
	/* It ended (status as waitpid() gives it); it is started again after restart_in_ms. */
	void (*on_exit)(size_t child, int status, int64_t restart_in_ms, void *arg);
	/* At least every 100 ms while running: for conditions that are polled. */
	void (*on_tick)(void *arg);
};

/* Blocks SIGINT, SIGTERM, SIGCHLD in this process (children get the mask that was). */
struct supervisor *supervisor_new(const struct supervisor_ops *ops, void *arg);
/* The specs' strings are borrowed. Returns the child's number; it is not started yet. */
size_t supervisor_add(struct supervisor *s, const struct child_spec *spec);
/* ERR_NOT_FOUND when the program cannot be run, with the reason; it is then not tried again, unless it has run
 * before: then it is, as after an exit. */
enum err_code supervisor_start(struct supervisor *s, size_t child, struct err *err);
pid_t supervisor_pid(const struct supervisor *s, size_t child); /* 0 while it does not run */
/* Runs until SIGINT or SIGTERM comes or supervisor_stop() is called. */
void supervisor_run(struct supervisor *s);
void supervisor_stop(struct supervisor *s);
/* Ends the children, last added first, each with SIGTERM and, after its grace, SIGKILL; their last lines are
 * still delivered. Frees s. */
void supervisor_free(struct supervisor *s);

#endif
