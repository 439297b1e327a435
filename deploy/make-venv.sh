#!/usr/bin/env bash
# make-venv.sh FOLDER LOCK: a virtual environment with exactly what the lock names, and this
# checkout in it, editable. Uses uv where it is installed, else python3 -m venv.
set -euo pipefail

folder=$1
lock=$2
here=$(cd "$(dirname "$0")/.." && pwd)

if command -v uv >/dev/null; then
    python=$(bash "$here/deploy/find-python.sh")
    rm -rf "$folder"
    uv venv --quiet --python "$python" "$folder"
    install=(uv pip install --quiet --python "$folder/bin/python")
else
    python=$(bash "$here/deploy/find-python.sh" --venv)
    rm -rf "$folder"
    "$python" -m venv "$folder"
    # -qq: errors only; what pip warns of here is the machine's own set-up
    install=("$folder/bin/python" -m pip -qq --disable-pip-version-check install)
fi
"${install[@]}" --require-hashes -r "$lock"
"${install[@]}" --no-deps --no-build-isolation -e "$here"
