#!/usr/bin/env bash
# Resolve requirements/*.txt anew from pyproject.toml, each set in a virtual environment of its own: plain name==version lines only.
# The demo's set is a part of the tests' set, since both live in .venv. Run by `make pins`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() { # NAME, then what pip is to install
    local name=$1 pip="$work/$1/bin/python -m pip --disable-pip-version-check"
    shift
    echo "resolving requirements/$name.txt"
    "${PYTHON:-python3}" -m venv "$work/$name"
    $pip install -qq --upgrade "pip>=25.1" # the first with --group
    $pip install -qq "$@"
    $pip freeze -qq --exclude framelane-celery >"$work/$name.txt"
    $pip check -qq
    mv "$work/$name.txt" "requirements/$name.txt"
}

resolve test '.[demo,postgresql,redis,metrics,tracing]' --group test --group lint --group celery57
resolve celery55 '.[demo,postgresql,redis,metrics,tracing]' --group test --group celery55
resolve demo '.[demo]' hatchling editables --constraint requirements/test.txt
resolve site '.[demo,django]' hatchling editables flower --constraint requirements/test.txt
