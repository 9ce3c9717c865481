/* cairn: the command line. Finds the sub-command; everything else is in src/cli, one file each. */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "base/must.h"
#include "cli/cli.h"

static const struct cli_command *const commands[] = {
	&cli_dev, &cli_append, &cli_read, &cli_tail, &cli_streams, &cli_stat,
	&cli_truncate, &cli_delete, &cli_erase, &cli_retention, &cli_compact, &cli_group,
	&cli_checkpoint, &cli_prove, &cli_backup, &cli_restore, &cli_accept_loss,
};

static void print_help(FILE *out)
{
	fputs("Usage: cairn COMMAND [OPTION...]\n\n"
	      "Runs functions on a Cairn journal, and shows what happened in it.\n\n",
	      out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-11s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n`cairn COMMAND --help` tells a command's options. Exit codes: 0 ok, 1 finding, 2 usage, "
	      "3 unreachable, 4 integrity.\n",
	      out);
}

int main(int argc, char *argv[])
{
	const char *name = argc > 1 ? argv[1] : NULL;
	if (!name) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		print_help(stdout);
		return CLI_OK;
	}
	if (!strcmp(name, "--version")) {
		puts("cairn " PACKAGE_VERSION);
		return CLI_OK;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(name, commands[i]->name))
			return (int)commands[i]->run(argc - 1, argv + 1);
	fprintf(stderr, "cairn: \"%s\" is no command; `cairn --help` lists them\n", name);
	return CLI_USAGE;
}
