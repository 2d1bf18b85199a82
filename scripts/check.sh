#!/usr/bin/env bash
# Lint, types, tests: what has to be clean before a change lands.
# Arguments go to pytest: scripts/check.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
pytest "$@"
