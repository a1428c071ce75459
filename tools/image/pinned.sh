#!/bin/sh
# The lines of a lock that are about the packages named: pinned.sh LOCK NAME...
set -eu
lock=$1
shift
awk -v names="$*" '
  BEGIN { split(names, list, " "); for (i in list) wanted[list[i]] }
  /^[A-Za-z0-9]/ { split($1, part, "=="); on = part[1] in wanted; if (on) found[part[1]] }
  on && !/^ *#/
  END { for (name in wanted) if (!(name in found)) { print "not in the lock: " name > "/dev/stderr"; exit 1 } }
' "$lock"
