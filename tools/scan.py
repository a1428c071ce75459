"""Known vulnerabilities in what the locks pin, by pip-audit: `make scan`.

The answer depends on the day, so it is no part of `make lint`. What couldn't be asked about is told, and is no failure:
a machine may reach no database. A finding is one. The argument is the folder of the environment that has pip-audit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parents[1] / "requirements"
NAMES = ("operator", "serve-cpu", "build", "flash-attn")  # what the images hold and what builds them


def audit(pip_audit: Path, lock: Path) -> list[dict[str, object]]:
    """What pip-audit says of each distribution; nothing where it can't ask at all."""
    command = [pip_audit, "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json", "-r", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, object]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"{lock.name}: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no answer'}")
        return []
    return found


def main(environment: Path) -> int:
    vulnerable = 0
    for lock in (LOCKS / f"{name}.txt" for name in NAMES):
        found = audit(environment / "bin" / "pip-audit", lock)
        asked = [one for one in found if "skip_reason" not in one]
        known = [one for one in asked if one.get("vulns")]
        for one in known:
            print(f"{lock.name}: {one['name']} {one['version']}: {json.dumps(one['vulns'])}")
        if asked:
            print(
                f"{lock.name}: {len(asked)} of {len(found)} distributions were looked up, {len(known)} are vulnerable"
            )
        else:
            print(f"{lock.name}: NOT SCANNED: no database of vulnerabilities answers here")
        vulnerable += len(known)
    return min(vulnerable, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
