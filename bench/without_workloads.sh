#!/bin/sh
# The core with harness/workloads deleted: verbs answer, what is gone says so, and the tests of the rest pass.
#
#     bench/without_workloads.sh            # verbs and the tests of the core, some minutes
#     bench/without_workloads.sh verbs      # verbs alone
#     bench/without_workloads.sh PATH...    # verbs and these tests
#
# It works on a copy of what git knows; the installed package's entry points still name what is no longer there.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$here" && git ls-files -z | xargs -0 sh -c 'for f; do [ -e "$f" ] && printf "%s\0" "$f"; done' sh | tar --null -T - -cf -) | tar -C "$copy" -xf -
rm -rf "$copy/harness/workloads" "$copy/tests/unit/workloads"
cd "$copy"
export PYTHONPATH="$copy" EDGE_HARNESS_HOME="$copy/home"
eh="python -m harness"

fails_with() { # status, words of its message, command
    status=$1 words=$2
    shift 2
    if text=$("$@" 2>&1); then found=0; else found=$?; fi
    case $text in
    *Traceback*) echo "a traceback of: $*"; echo "$text"; exit 1 ;;
    *"$words"*) ;;
    *) echo "$*: found '$text', expected '$words'"; exit 1 ;;
    esac
    [ "$found" = "$status" ] || { echo "$*: found status $found, expected $status"; exit 1; }
}

$eh --help > help.txt
$eh devices show > /dev/null
$eh models show > /dev/null
$eh fit llama-3.2-1b -d iphone-16-pro > /dev/null
fails_with 4 "not there" $eh workloads run
fails_with 2 "no system named" $eh fit llama-3.2-1b -d iphone-16-pro --with memory
echo "verbs: ok"
[ "${1:-}" = verbs ] && exit 0
# Pages speak of systems, and their tests look for what pages name; the last one left out is the test of this script.
[ $# -gt 0 ] || set -- tests/unit tests/contract --ignore tests/contract/test_words.py --ignore tests/contract/test_docs.py \
    --ignore tests/contract/test_without_workloads.py
python -m pytest -q "$@"
