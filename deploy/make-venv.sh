#!/usr/bin/env bash
# make-venv.sh FOLDER LOCK: a virtual environment with exactly what the lock names, and this
# checkout in it, editable. Uses uv where it is installed, else python3 -m venv.
set -euo pipefail

folder=$1
lock=$2
here=$(cd "$(dirname "$0")/.." && pwd)

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "meter-gateway needs Python 3.11 or newer and found none." >&2
    echo "On Debian and Raspberry Pi OS: sudo apt-get install python3 python3-venv" >&2
    exit 69
fi

if command -v uv >/dev/null; then
    uv venv --quiet --clear --python "$python" "$folder"
    uv pip install --quiet --python "$folder/bin/python" --require-hashes -r "$lock"
    uv pip install --quiet --python "$folder/bin/python" --no-deps --no-build-isolation -e "$here"
else
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$("$python" --version) has no venv." >&2
        echo "On Debian and Raspberry Pi OS: sudo apt-get install python3-venv" >&2
        exit 69
    fi
    rm -rf "$folder"
    "$python" -m venv "$folder"
    pip=("$folder/bin/python" -m pip --disable-pip-version-check --quiet install)
    "${pip[@]}" --require-hashes -r "$lock"
    "${pip[@]}" --no-deps --no-build-isolation -e "$here"
fi
