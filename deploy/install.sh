#!/usr/bin/env bash
# install.sh: puts this checkout onto a Raspberry Pi or any other Debian, or upgrades what is there.
#
#   /opt/meter-gateway         the program, in an environment of its own, and its documentation
#   /etc/meter-gateway         configuration and tokens: never overwritten
#   /var/lib/meter-gateway     the buffer: never touched
#
# With DESTDIR=FOLDER all of it is put below FOLDER, and systemd is left alone.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
root=${DESTDIR:-}
opt=$root/opt/meter-gateway
etc=$root/etc/meter-gateway
units=$root/etc/systemd/system
new=$opt/env-$(date +%Y%m%d-%H%M%S)

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "This needs root: sudo $0" >&2
    exit 77
fi
python=$(bash "$here/deploy/find-python.sh" --venv)
booted= # is this systemd's machine, and not an image that is being made?
[ -n "$root" ] || [ ! -d /run/systemd/system ] || booted=yes

# ---------------------------------------------------------------- a new environment, beside the old

scratch=$(mktemp -d)
trap 'rm -rf "$scratch" "$new"' EXIT # what is half made; taken back once it is whole
echo "making $new with $("$python" --version)"
install -d -m 755 "$opt" "$units"
"$python" -m venv "$new"
pip() { "$new/bin/python" -m pip -qq --disable-pip-version-check --no-input install "$@"; }
pip --require-hashes -r "$here/requirements.lock"
pip --require-hashes -r "$here/deploy/build.lock" --target "$scratch"
PYTHONPATH=$scratch pip --no-deps --no-build-isolation "$here"
cp "$here/deploy/meter-gateway.service" "$new/"
"$new/bin/meter-gateway" --version
chmod -R go+rX "$new"
sync # a power cut after this finds it whole
trap 'rm -rf "$scratch"' EXIT

# -------------------------------------------------------------------------------- configuration

install -d -m 755 "$etc"
[ -d "$etc/tokens" ] || install -d -m 700 "$etc/tokens"
fresh=
if [ ! -e "$etc/gateway.yaml" ]; then
    install -m 644 "$here/deploy/gateway.yaml" "$etc/gateway.yaml"
    fresh=yes
fi
schema=$("$new/bin/python" -c \
    'import gateway.config as c, pathlib; print(pathlib.Path(c.__file__).parent / "schemas")')
install -m 644 "$schema/gateway.schema.json" "$etc/"

# ------------------------------------------------------------------------------------- in force

put_in_force() { # ENVIRONMENT
    install -m 644 "$1/meter-gateway.service" "$units/"
    ln -sfn "$(basename "$1")" "$opt/current.new"
    mv -T "$opt/current.new" "$opt/current"
    [ -z "$booted" ] || systemctl daemon-reload
}

before=
if [ -e "$opt/current" ]; then
    before=$opt/$(readlink "$opt/current")
fi
put_in_force "$new"
rm -rf "$opt/docs"
cp -r "$here/docs" "$opt/docs"
chmod -R go+rX "$opt/docs"
install -d -m 755 "$root/usr/local/bin"
ln -sfn /opt/meter-gateway/current/bin/meter-gateway "$root/usr/local/bin/meter-gateway"

running=
if [ -n "$booted" ] && systemctl --quiet is-active meter-gateway; then
    running=yes
    echo "restarting the gateway"
    if ! systemctl restart meter-gateway; then
        if [ -n "$before" ]; then
            put_in_force "$before"
            systemctl restart meter-gateway || true
        fi
        echo "The new version did not start, so the old one is back in force. Why:" >&2
        echo "  journalctl -u meter-gateway -n 50" >&2
        exit 1
    fi
fi
for old in "$opt"/env-*; do # the one before is kept
    [ "$old" = "$new" ] || [ "$old" = "$before" ] || rm -rf "$old"
done

# --------------------------------------------------------------------------------- what is next

if [ -n "$running" ]; then
    echo "done: the gateway runs with the new version. Look at it: sudo meter-gateway status"
    exit
fi
echo
[ -z "$fresh" ] || echo "A configuration to fill in is in /etc/meter-gateway/gateway.yaml."
cat <<'NEXT'
What is next:

  sudo nano /etc/meter-gateway/gateway.yaml
  sudo install -m 600 /dev/stdin /etc/meter-gateway/tokens/basement    paste the token, Enter, Ctrl-D
  sudo meter-gateway check
  sudo systemctl enable --now meter-gateway
  sudo meter-gateway status

All of it in order: /opt/meter-gateway/docs/how-to/connect-energinet.md
To take it off again: /opt/meter-gateway/docs/how-to/install-on-a-pi.md
NEXT
