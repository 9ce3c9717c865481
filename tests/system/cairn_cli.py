"""The command line, `cairn`, as a program that is run to its end."""

import json
import os
import subprocess

import tools
from recorder import PATIENCE


class Result:
    """How it ended: `code`, and `out` and `err` as bytes."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def lines(self):
        """Of `-o jsonl`."""
        return [json.loads(line) for line in self.out.splitlines()]

    def text(self):
        """Of one that ended well, what it printed."""
        assert self.code == 0, self.err.decode()
        return self.out.decode()


def cairn(journal, *arguments, env=None, **more):
    """Runs `cairn ARGUMENTS` against a cairnd (or the port of one). `more` goes to subprocess.run()."""
    port = journal if isinstance(journal, int) else journal.port
    env = {**os.environ, "CAIRN_JOURNAL": "127.0.0.1:%d" % port, **(env or {})}
    return Result(subprocess.run([tools.program("cairn"), *map(str, arguments)], capture_output=True,
                                 timeout=4 * PATIENCE, env=env, **more))
