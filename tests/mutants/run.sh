#!/usr/bin/env bash
# Plants each fault of this folder in a copy of the tree, and shows that the suite it is for finds it: of faults in what exact
# tables hide the attacker with a solver (unit tests), of all others the distinguishability suite.
#
#     tests/mutants/run.sh [PATTERN]     all patches, or those whose names contain PATTERN
#
# The copy is a git worktree of HEAD in a temporary folder. First the suite must pass without a fault; then, with each, it must
# build and fail. Exits with 1 if a fault is not found. Not for CI: every fault is a build of its own, of minutes.
# CARGO_TARGET_DIR says where to build; by default the checkout's.
set -uo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}" CARGO_TERM_COLOR=never
copy="$(mktemp -d)/tree"
log="$(dirname "$copy")/log"
git -C "$root" worktree add --quiet --detach "$copy" HEAD || exit 2
trap 'git -C "$root" worktree remove --force "$copy"; rm -rf "$(dirname "$copy")"' EXIT
cd "$copy"

hiding() { grep -q '^+++ b/aggregation/src/suppress' "${patch:-/dev/null}"; }
target() { if hiding; then echo "--lib"; else echo "--test all"; fi; }
build() { cargo test --workspace --locked $(target) --no-run >"$log" 2>&1; }
# Without the test that every patch applies, which a planted fault breaks by itself.
suite() {
    if hiding; then cargo test --workspace --locked --lib suppress::solver >"$log" 2>&1
    else cargo test --workspace --locked --test all distinguish -- --skip distinguish::mutants >"$log" 2>&1; fi
}
failed() { sed -n 's/^test \(distinguish\|suppress::solver\)::\(.*\) \.\.\. FAILED$/\2/p' "$log" | sort | paste -sd' '; }

for patch in /dev/null "$root/tests/mutants/17-no-complement.patch"; do
    build || { tail -40 "$log" >&2; echo "the tree does not build" >&2; exit 2; }
    suite || { tail -40 "$log" >&2; echo "the suite fails without a fault: $(failed)" >&2; exit 2; }
done
echo "no fault: the suites pass"

left=0
for patch in "$root"/tests/mutants/*"${1:-}"*.patch; do
    name="$(basename "$patch" .patch)"
    git apply "$patch" || { echo "$name: does not apply"; left=1; continue; }
    if ! build; then
        grep -m3 -A6 '^error' "$log" >&2
        echo "$name: does not build"; left=1
    elif suite; then
        echo "$name: NOT FOUND"; left=1
    elif found="$(failed)"; [ -z "$found" ]; then
        tail -5 "$log" >&2
        echo "$name: the suite did not run"; left=1
    else
        echo "$name: found by $found"
    fi
    git apply --reverse "$patch"
done
exit $left
