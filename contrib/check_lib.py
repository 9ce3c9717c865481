"""What the repository's checks share: the files of the tree, C without its comments, and TAP."""

import os
import re
import subprocess
import sys


def root():
    """The top of the sources: CAIRN_SRCDIR under `make check`, else the folder above this file."""
    return os.environ.get("CAIRN_SRCDIR") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def files():
    """Every file of the project, relative to root(): what git knows or would take, or, outside a
    checkout (a release, a planted tree of the self-test), what is there."""
    top = root()
    if os.path.exists(os.path.join(top, ".git")):
        out = subprocess.run(["git", "-c", "safe.directory=*", "-C", top, "ls-files", "-co", "--exclude-standard"],
                             stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout
        return sorted(set(f for f in out.splitlines() if os.path.isfile(os.path.join(top, f))))
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = [d for d in folders if not d.startswith((".", "build", "autom4te", "__pycache__"))
                      and not (folder == top and d.startswith("_"))
                      and not os.path.exists(os.path.join(folder, d, "config.status"))]
        found += [os.path.relpath(os.path.join(folder, n), top) for n in names]
    made = ("configure", "Makefile.in", "aclocal.m4", "config.h.in", ".o", ".a", ".pyc", ".log", ".trs",
            ".pb-c.c", ".pb-c.h")
    return sorted(f for f in found if not f.endswith(made))


def read(path):
    with open(os.path.join(root(), path), encoding="utf-8", errors="replace", newline="") as f:
        return f.read()


def without_comments(text, strings=True):
    """C with its comments (and, if asked, what is inside its strings) blanked out, line numbers kept."""
    def blank(match):
        part = match.group(0)
        if part.startswith("/"):
            return re.sub(r"[^\n]", " ", part)
        return part if strings else part[0] + " " * (len(part) - 2) + part[-1]
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def lines_where(text, pattern):
    """The numbers of the lines where pattern matches, with the match."""
    return [(text.count("\n", 0, m.start()) + 1, m) for m in re.finditer(pattern, text, flags=re.M)]


class Tap:
    """One line a rule; what breaks it is listed below, as file:line: what to do."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def rule(self, name, broken):
        self.count += 1
        self.failed += bool(broken)
        print("%s %d - %s" % ("not ok" if broken else "ok", self.count, name))
        for line in broken:
            print("# " + line)

    def end(self):
        print("1..%d" % self.count)
        sys.exit(1 if self.failed or not self.count else 0)
