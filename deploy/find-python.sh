#!/usr/bin/env bash
# find-python.sh [--venv]: prints a Python that is new enough, with --venv one that can make virtual
# environments; says what to install where there is none. $PYTHON goes before what is found.
set -euo pipefail

wanted='import sys; sys.exit(sys.version_info < (3, 11))'
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && "$candidate" -c "$wanted" 2>/dev/null; then
        if [ "${1:-}" = --venv ] && ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            without_venv=$candidate
            continue
        fi
        command -v "$candidate"
        exit
    fi
done
if [ -n "${without_venv:-}" ]; then
    echo "$("$without_venv" --version) is there, but its venv is not." >&2
else
    echo "meter-gateway needs Python 3.11 or newer, and there is none." >&2
fi
echo "On Debian and Raspberry Pi OS: sudo apt-get install python3 python3-venv" >&2
exit 69
