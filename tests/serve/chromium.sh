#!/bin/sh
# Debian's Chromium for the tests of the page (tests/serve/test_page.py), where there is none yet; as root.
command -v chromium >/dev/null && exit 0
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium
