#!/usr/bin/env bash
# Resolve requirements/*.txt anew from pyproject.toml, each set in a virtual environment of its own: plain name==version lines only.
# The demo's set is a part of the tests' set, since both live in .venv. Run by `make pins`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

newest_python() { # Django 6 needs Python 3.12 or later; nothing: there is none on this machine
    local name
    for name in python3.14 python3.13 python3.12; do
        if "$name" -c 'import venv' 2>/dev/null; then echo "$name"; return; fi
    done
}

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

resolve test '.[demo,postgresql,redis,metrics,tracing]' --group test --group docs --group lint --group celery57
resolve celery55 '.[demo,postgresql,redis,metrics,tracing]' --group test --group celery55
resolve demo '.[demo]' hatchling editables --constraint requirements/test.txt
resolve site '.[demo,django]' hatchling editables flower --constraint requirements/test.txt

# What tests/django needs, on Django's oldest and newest version that we say works; the LTS is in the tests' own set.
grep -iv '^django==' requirements/test.txt >"$work/but-django.txt"
django() { # NAME, a requirement of Django
    resolve "$1" '.[demo,postgresql,redis]' "$2" pytest pytest-timeout hatchling editables --constraint "$work/but-django.txt"
}
django django42 'django~=4.2.0'
newest=${NEWEST_PYTHON:-$(newest_python)}
if [ -n "$newest" ]; then
    PYTHON=$newest django django6 'django>=6,<7'
else
    echo "requirements/django6.txt is left as it was: Django 6 needs Python 3.12 or later, and there is none here" >&2
fi
