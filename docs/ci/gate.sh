#!/bin/sh
# Gates what this checkout builds against what the base revision builds, on one machine, in one job.
#
#   RECIPE=optimize/recipes/scenes-int8.toml BUDGET=bench/budgets/scenes.toml docs/ci/gate.sh
#
# RECIPE, BUDGET    paths in the repository (needed)
# BASE              git revision to compare with; default: where this branch left origin/main
# BASE_ARTIFACT     an artifact of the store instead, for instance scenes-int8.fp32; BASE is not built then
# DEPLOYMENT        how both are served (TOML); default: as seatrial gate has it
# ON_INCONCLUSIVE   block (exit 3, the default) or warn (exit 0)
# RETRIES           how often an INVALID run is made again; default 1
# OUT               where results go; default seatrial-out: gate.md, junit.xml, report.html, run/ (raw)
# SEATRIAL          the command; default .venv/bin/seatrial where that is there, else the one on the path
#
# Exit codes: 0 pass, 1 fail, 2 usage, 3 could not tell, 4 the machine or the load made every run invalid, 5 a stored
# record is damaged.
set -eu

: "${RECIPE:?name the recipe to build}" "${BUDGET:?name the budget to judge by}"
out=${OUT:-seatrial-out}
command=${SEATRIAL:-$([ -x .venv/bin/seatrial ] && echo "$PWD/.venv/bin/seatrial" || echo seatrial)}

seatrial() { "$command" "$@"; }
say() { echo "gate: $*" >&2; }
artifact() { sed -n 's/^ "artifact": "\(sha256:[0-9a-f]*\)",*$/\1/p' "$1"; }

# Raw runs are large and are what a verdict is computed from: a second run never overwrites the first.
mkdir -p "$out"
if [ -e "$out/run" ]; then
    say "$out/run is there already: remove it, or set OUT"
    exit 2
fi

# Both arms are built here and now. A stored base would be of another day, another machine, other libraries.
if [ -n "${BASE_ARTIFACT:-}" ]; then
    base=$BASE_ARTIFACT
else
    revision=$(git rev-parse --verify "${BASE:-$(git merge-base origin/main HEAD)}^{commit}")
    say "building the base, $revision"
    tree=$(mktemp -d)
    trap 'git worktree remove --force "$tree" >/dev/null 2>&1 || true' EXIT
    git worktree add --quiet --detach --force "$tree" "$revision"
    seatrial build "$tree/$RECIPE" --json > "$out/base.json"
    base=$(artifact "$out/base.json")
fi
say "building the candidate"
seatrial build "$RECIPE" --json > "$out/candidate.json"
candidate=$(artifact "$out/candidate.json")

if [ "$base" = "$candidate" ]; then
    say "base and candidate are the same bytes ($candidate): nothing to gate"
    echo "Base and candidate are the same bytes: nothing to gate." > "$out/gate.md"
    exit 0
fi

# A run that the machine spoiled says nothing, so it may be made again. A verdict is never asked for twice.
attempt=0
while :; do
    code=0
    set -- "$base" "$candidate" --budget "$BUDGET" --recipe "$RECIPE" --out "$out/run"
    [ -z "${DEPLOYMENT:-}" ] || set -- "$@" --deployment "$DEPLOYMENT"
    seatrial gate "$@" || code=$?
    [ "$code" -eq 4 ] && [ "$attempt" -lt "${RETRIES:-1}" ] || break
    attempt=$((attempt + 1))
    say "INVALID: once more ($attempt of ${RETRIES:-1})"
    [ ! -e "$out/run" ] || mv "$out/run" "$out/run-invalid-$attempt"
done

# The reports come from the raw run; their exit code is the verdict's, which is known already.
if [ -e "$out/run/run.json" ]; then
    seatrial report "$out/run" --markdown --html "$out/report.html" --junit "$out/junit.xml" > "$out/gate.md" || true
    [ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$out/gate.md" >> "$GITHUB_STEP_SUMMARY"
fi

case $code in
0) say "PASS" ;;
1) say "FAIL: see $out/report.html" ;;
3)
    if [ "${ON_INCONCLUSIVE:-block}" = warn ]; then
        say "INCONCLUSIVE: not blocked, as ON_INCONCLUSIVE says"
        code=0
    else
        say "INCONCLUSIVE: $out/gate.md says how many pairs would settle it"
    fi
    ;;
4) say "INVALID: the machine or the load spoiled the run; nothing was decided" ;;
5) say "a stored record is damaged; take the next step named above" ;;
*) say "seatrial gate ended with $code" ;;
esac
exit "$code"
