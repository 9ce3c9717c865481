# Sourced by contrib/check and .ci/run: building and testing in stages, quietly, with every result counted.
# A stage has a name, a build folder build-check/NAME and a log beside it. Nothing here stops at the first
# failure: what is broken is shown, counted, and the next stage runs.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
checks=$top/build-check
export CAIRN_TOOLS_DIR=${CAIRN_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:-~}/.cache}/cairn}
unset MAKEFLAGS MAKELEVEL
jobs=${CAIRN_JOBS:-$(nproc)}
CHECK_MAX_S=1800 # a suite that takes longer hangs

passed=0 failed=0 skipped=0
steps=1 step=0 stage_started=$SECONDS

say() { printf '%s\n' "$*"; }

# The next step of $steps: a line that says what happens now.
next() {
	step=$((step + 1))
	stage_started=$SECONDS
	printf '[%d/%d] %s …\n' "$step" "$steps" "$1"
}

count() { # passed failed skipped
	passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# stage_failed LOG WHAT WHAT-TO-TRY
stage_failed() {
	count 0 1 0
	printf '  FAILED: %s\n' "$2"
	if [ -s "$1" ]; then
		printf '  what %s says:\n' "${1#"$top"/}"
		{
			grep -aE ' error: |undefined reference|\*\*\*' "$1" | head -n 10
			echo ...
			tail -n 20 "$1"
		} | sed 's/^/  | /'
	fi
	printf '  try: %s\n' "$3"
	return 1
}

# stage_packages build PURPOSE...: without root, what building needs must be there; tests can be skipped.
stage_packages() {
	"$top/contrib/install-packages" "$@" && return 0
	if [ "$no_skip" = 0 ] && "$top/contrib/install-packages" "$1"; then
		say "  going on without: tests that need them are skipped"
		return 0
	fi
	count 0 1 0
	return 1
}

# The configure script, made again where it is older than what it is made from.
stage_autoreconf() {
	local log=$checks/autoreconf.log
	mkdir -p "$checks"
	# Its own rules follow a later change of the rest.
	[ -x "$top/configure" ] && [ ! "$top/configure.ac" -nt "$top/configure" ] && return 0
	(cd "$top" && autoreconf -fi) >"$log" 2>&1 ||
		stage_failed "$log" "autoreconf" "contrib/install-packages build"
}

# stage_build NAME CONFIGURE-ARGUMENT...: configures once, builds everything, tests too.
stage_build() {
	local name=$1 dir=$checks/$1 log=$checks/$1.build.log
	shift
	mkdir -p "$dir"
	: >"$log"
	if [ ! -f "$dir/Makefile" ] || [ "$(cat "$dir/.arguments" 2>/dev/null)" != "$*" ]; then
		rm -rf "$dir" && mkdir -p "$dir"
		if ! (cd "$dir" && "$top/configure" --silent "$@") >>"$log" 2>&1; then
			rm -f "$dir/Makefile"
			stage_failed "$log" "configure ($name)" "contrib/install-packages build"
			return 1
		fi
		printf '%s' "$*" >"$dir/.arguments"
	fi
	# One after the other: in parallel both would build the same. TESTS= builds the tests and runs none.
	{ make -C "$dir" -s -j"$jobs" all && make -C "$dir" -s -j"$jobs" check TESTS=; } >>"$log" 2>&1 ||
		stage_failed "$log" "build ($name)" "make -C ${dir#"$top"/}"
}

# What runs, as it comes: every test program once, every result that is no pass.
progress() {
	awk -v quiet="${CAIRN_CHECK_QUIET:-}" '
		/^(PASS|FAIL|ERROR|SKIP|XFAIL|XPASS): / {
			name = $2
			if (!(name in seen) && !quiet) { seen[name] = 1; print "  " name; fflush() }
		}
		/^(FAIL|ERROR|XPASS): / { print "    " $0; fflush() }'
}

# stage_check NAME [TEST...]: runs the tests and counts them; skips fail under no_skip=1, but for those whose
# reason matches $may_skip.
no_skip=0
may_skip='[Pp]ython ?3\.8'
stage_check() {
	local name=$1 dir=$checks/$1 log=$checks/$1.check.log
	shift
	rm -f "$dir/test-suite.log"
	if [ $# -gt 0 ]; then set -- TESTS="$*"; fi
	timeout -k 30 "$CHECK_MAX_S" make -C "$dir" -k -j"${CAIRN_CHECK_JOBS:-2}" check "$@" 2>&1 |
		tee "$log" | progress
	local status=${PIPESTATUS[0]}
	if [ "$status" = 124 ] || [ ! -f "$dir/test-suite.log" ]; then
		stage_failed "$log" "the tests ($name) did not end" "make -C ${dir#"$top"/} check"
		return 1
	fi
	local before=$failed totals again=
	totals=$(check_totals "$dir")
	if [ "$status" != 0 ] && [ "${CAIRN_CHECK_TRIES:-1}" -gt 1 ]; then
		again=$(failed_programs "$log")
		if second_try "$dir" "$log" "$again"; then status=0; fi
	fi
	# shellcheck disable=SC2086  # three numbers
	count $totals
	# shellcheck disable=SC2086
	printf '  %d passed, %d failed, %d skipped, in %d s\n' $totals $((SECONDS - stage_started))
	show_skips "$log"
	[ "$status" = 0 ] && return 0
	if [ "$failed" = "$before" ]; then
		stage_failed "$log" "make check ($name), though no test did" "make -C ${dir#"$top"/} check"
	else
		show_failures "$dir" "$log"
	fi
	return 1
}

# The totals that automake wrote: passed, failed, skipped.
check_totals() {
	awk '/^# (PASS|XFAIL):/ { p += $3 } /^# (FAIL|XPASS|ERROR):/ { f += $3 } /^# SKIP:/ { s += $3 }
		/^# ERROR:/ { exit } END { print p + 0, f + 0, s + 0 }' "$1/test-suite.log"
}

failed_programs() { grep -aE '^(FAIL|ERROR|XPASS): ' "$1" | awk '{ print $2 }' | sort -u; }

# second_try DIR LOG PROGRAMS: with CAIRN_CHECK_TRIES=2, up to three programs that failed run once more, each
# alone. What passes then is counted as passed and named; the log of the failure stays beside it, .first-try.
# Sets $totals as they are then; fails if anything does.
second_try() {
	local dir=$1 log=$2 program name sum status=0 first again=0
	local p f s
	# shellcheck disable=SC2086  # names
	set -- $3
	[ $# -ge 1 ] && [ $# -le 3 ] || return 1
	for program in "$@"; do
		name=${program%.py}
		cp "$dir/$name.log" "$dir/$name.first-try.log" 2>/dev/null
		first=$(program_totals "$dir/$name.trs")
		if ! timeout -k 30 "$CHECK_MAX_S" make -C "$dir" check TESTS="$program" >"$dir/$name.second-try" 2>&1
		then
			status=1
			continue
		fi
		again=$(program_totals "$dir/$name.trs")
		read -r p f s <<<"$totals"
		# shellcheck disable=SC2086  # six numbers
		totals=$(set -- $p $f $s $first $again && echo $(($1 - $4 + $7)) $(($2 - $5 + $8)) $(($3 - $6 + $9)))
		printf '  %s failed, and passed when it ran again, alone; what failed: %s\n' "$program" \
			"${dir#"$top"/}/$name.first-try.log"
		sed -i "\\,^\\(FAIL\\|ERROR\\|XPASS\\): $program\\( \\|\$\\),d" "$log"
	done
	return $status
}

# What automake noted of one program: passed, failed, skipped.
program_totals() {
	awk '/^:test-result: (PASS|XFAIL)/ { p++ } /^:test-result: (FAIL|XPASS|ERROR)/ { f++ }
		/^:test-result: SKIP/ { s++ } END { print p + 0, f + 0, s + 0 }' "$1"
}

show_skips() {
	local skips wrong
	skips=$(grep -a '^SKIP: ' "$1" | sort -u)
	[ -n "$skips" ] || return 0
	printf '%s\n' "$skips" | sed 's/^/  /'
	[ "$no_skip" = 1 ] || return 0
	wrong=$(printf '%s\n' "$skips" | grep -vcE "$may_skip")
	[ "$wrong" = 0 ] && return 0
	count 0 "$wrong" "-$wrong"
	printf '  FAILED: %d skipped, and no skip is allowed\n' "$wrong"
	printf '  try: install what the reasons name\n'
}

show_failures() {
	local dir=$1 program
	printf '  FAILED:\n'
	grep -aE '^(FAIL|ERROR|XPASS): ' "$2" | sort -u | sed 's/^/    /'
	for program in $(grep -aE '^(FAIL|ERROR|XPASS): ' "$2" | awk '{ print $2 }' | sort -u | head -n 5); do
		printf '  the end of %s, without what passed:\n' "${dir#"$top"/}/${program%.py}.log"
		grep -avE '^(PASS: |ok )' "$dir/${program%.py}.log" | tail -n 25 | sed 's/^/  | /'
		printf '  try: make -C %s check TESTS=%s\n' "${dir#"$top"/}" "$program"
	done
}

# The very last line; the exit status says whether anything failed.
finish() {
	printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
	[ "$failed" = 0 ]
}
