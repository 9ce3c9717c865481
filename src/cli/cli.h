/* The command line's frame: what a sub-command is, and what all of them share. A sub-command is one file
 * that exports one `const struct cli_command cli_<name>`, and one line in src/cairn.c. */
#ifndef CAIRN_CLI_H
#define CAIRN_CLI_H

#include "base/err.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_FINDING = 1,     /* it did its work and found something (a refused append, no such stream) */
	CLI_USAGE = 2,	     /* the command's words are wrong */
	CLI_UNREACHABLE = 3, /* nothing answers where something should, or it could not be started */
	CLI_INTEGRITY = 4    /* stored bytes are not what was written */
};

struct cli_command {
	const char *name;
	const char *summary; /* one line, for `cairn --help` */
	/* argv[0] is the command's name. Data goes to stdout, everything else to stderr. */
	enum cli_exit (*run)(int argc, char *const argv[]);
	const char *words; /* what stands behind the name and flags, for its own help; or NULL */
};

/* The one table from our errors to exit codes. */
enum cli_exit cli_exit_of(enum err_code code);
/* Prints "cairn NAME: text" to stderr and returns the exit code that goes with the error. */
enum cli_exit cli_fail(const struct cli_command *command, const struct err *err);

extern const struct cli_command cli_accept_loss;
extern const struct cli_command cli_append;
extern const struct cli_command cli_backup;
extern const struct cli_command cli_checkpoint;
extern const struct cli_command cli_compact;
extern const struct cli_command cli_delete;
extern const struct cli_command cli_dev;
extern const struct cli_command cli_erase;
extern const struct cli_command cli_group;
extern const struct cli_command cli_prove;
extern const struct cli_command cli_read;
extern const struct cli_command cli_restore;
extern const struct cli_command cli_retention;
extern const struct cli_command cli_stat;
extern const struct cli_command cli_streams;
extern const struct cli_command cli_tail;
extern const struct cli_command cli_truncate;

#endif
