"""Known vulnerabilities in what the locks pin, by pip-audit: `make scan`.

The answer depends on the day, so it is no part of `make lint`. What couldn't be asked about is told, and is no failure:
a machine may reach no database. A finding is one, and with --required, as before a release, also what wasn't answered:
a scan that is silent must not pass for one that found nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parents[1] / "requirements"
NO_LOCK = ".override"  # pins nothing


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


def locks() -> list[Path]:
    """All: what the images hold, what builds them, and what runs on the machine of whoever develops."""
    return [lock for lock in sorted(LOCKS.glob("*.txt")) if not lock.stem.endswith(NO_LOCK)]


def scanned(pip_audit: Path, lock: Path) -> tuple[int, bool]:
    """How many are vulnerable, and whether the database answered for each."""
    found = audit(pip_audit, lock)
    skipped = [one for one in found if "skip_reason" in one]
    known = [one for one in found if one.get("vulns")]
    if len(skipped) == len(found):
        print(f"{lock.name}: NOT SCANNED: no database of vulnerabilities answers here")
        return 0, False
    for one in known:
        print(f"{lock.name}: {one['name']} {one['version']}: {json.dumps(one['vulns'])}")
    for one in skipped:
        print(f"{lock.name}: {one['name']} was not looked up: {one['skip_reason']}")
    asked = len(found) - len(skipped)
    print(f"{lock.name}: {asked} of {len(found)} distributions were looked up, {len(known)} are vulnerable")
    return len(known), not skipped


def main(environment: Path, names: list[str], *, required: bool) -> int:
    wanted = [lock for lock in locks() if not names or lock.stem in names]
    answers = [scanned(environment / "bin" / "pip-audit", lock) for lock in wanted]
    complete = bool(answers) and all(whole for _, whole in answers)
    return int(any(vulnerable for vulnerable, _ in answers) or (required and not complete))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="the folder of the environment that has pip-audit")
    parser.add_argument("names", nargs="*", help="of locks; all by default")
    parser.add_argument("--required", action="store_true", help="fail where the database doesn't answer")
    given = parser.parse_args()
    sys.exit(main(given.environment, given.names, required=given.required))
