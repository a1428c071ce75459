#!/usr/bin/env bash
# The site of docs/: site.sh serve shows it and follows edits, site.sh build makes site/ and refuses a link that leads nowhere
# and a page that loads anything from elsewhere: readers may be offline, and nobody is told that they read.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(tools/environment.sh --scan)
if [ "$1" = serve ]; then exec "$environment/bin/zensical" serve; fi
rm -rf site
log=$(mktemp)
trap 'rm -f "$log"' EXIT
NO_COLOR=1 "$environment/bin/zensical" build --strict > "$log" 2>&1 || { cat "$log"; exit 1; }
if grep -rnoE --include='*.html' --include='*.css' '(src=|<link[^>]* href=|url\()["'\'']?(https?:)?//[^"'\'' )>]*' site | grep -v 'rel="canonical"'; then
  echo "these pages load something from elsewhere"
  exit 1
fi
# What the theme's own script would fetch, for diagrams and the like.
if grep -rlE --include='*.html' 'class="(mermaid|pyodide|glightbox)' site; then
  echo "these pages have a part for which the theme loads a program from elsewhere"
  exit 1
fi
echo "the site: $(find site -name '*.html' | wc -l) pages"
