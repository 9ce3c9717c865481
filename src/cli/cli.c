#include <config.h>

#include "cli/cli.h"

#include <stdio.h>

#include "base/must.h"

enum cli_exit cli_exit_of(enum err_code code)
{
	switch (code) {
	case ERR_OK: return CLI_OK;
	case ERR_INVALID:
	case ERR_LIMIT:
	case ERR_UNSUPPORTED: return CLI_USAGE;
	case ERR_NOT_FOUND:
	case ERR_EXISTS:
	case ERR_CONFLICT:
	case ERR_FULL: return CLI_FINDING;
	case ERR_UNAVAILABLE:
	case ERR_TIMEOUT:
	case ERR_IO:
	case ERR_NOMEM:
	case ERR_CANCELLED:
	case ERR_INTERNAL: return CLI_UNREACHABLE;
	case ERR_CORRUPT: return CLI_INTEGRITY;
	case ERR_CODE_COUNT: break;
	}
	unreachable_state("err_code");
}

enum cli_exit cli_fail(const struct cli_command *command, const struct err *err)
{
	fprintf(stderr, "cairn %s: %s\n", command->name, err->text);
	return cli_exit_of(err->code);
}
