"""``make bench``: figures, never a pass or fail by time."""

from tests.bench.operator import main

main()
