#!/bin/sh
# Provide the servers and the browser that some tests drive, from system packages where allowed.
# What can not be provided is said here; its tests skip with that reason and are counted.
set -u
want=""
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || want="$want chromium"
command -v prometheus-alertmanager >/dev/null 2>&1 || command -v alertmanager >/dev/null 2>&1 || want="$want prometheus-alertmanager"
command -v nginx >/dev/null 2>&1 || want="$want nginx-light"
command -v haproxy >/dev/null 2>&1 || want="$want haproxy"
[ -z "$want" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  # A package must not start a service of its own on a developer's machine or in CI.
  policy=/usr/sbin/policy-rc.d
  made=""
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=1; }
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $want; } >/dev/null 2>&1 \
    || echo "provide: could not install:$want; tests that need them will skip" >&2
  [ -n "$made" ] && rm -f "$policy"
else
  echo "provide: not found and not root to install:$want; tests that need them will skip" >&2
fi
exit 0
