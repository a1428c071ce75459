"""``make bench`` and ``make bench-trainer``: figures, never a pass or fail by time."""

import sys

if sys.argv[1:2] == ["trainer"]:
    from tests.bench.trainer import main as trainer

    trainer(sys.argv[2:])
else:
    from tests.bench.operator import main

    main()
