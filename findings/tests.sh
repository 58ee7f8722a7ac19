#!/usr/bin/env bash
# pytest 9.2.0 with pytest-xdist 3.8.0: `--dist loadgroup` groups nothing, and says nothing.
#
# xdist's worker appends «@<group>» to `item._nodeid`, and the scheduler splits by what stands behind the «@» of `item.nodeid`. In pytest 9.2
# `nodeid` is made of another attribute, so the scheduler sees no group: six tests of one xdist_group are spread over both workers, and what a
# module's fixture made is made on each. With pytest 9.1.1 and the same xdist all six run on one worker. `--dist loadfile` works with both.
#
# Installs into temporary folders. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/test_group.py" <<'PYTHON'
import os
import time

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_one(number):
    time.sleep(0.2)
    with open("workers.txt", "a") as told:
        told.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON
cd "$folder"
seen=""
for version in 9.1.1 9.2.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "pytest==$version" 'pytest-xdist==3.8.0'
  rm -f workers.txt
  "$folder/$version/bin/python" -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider test_group.py > out.txt
  tail -1 out.txt
  workers=$(sort -u workers.txt | wc -l)
  echo "pytest $version: the six tests of one group ran on $workers worker(s)"
  seen="$seen$workers "
done
[ "$seen" = "1 2 " ] || { echo "the behaviour has changed: $seen"; exit 1; }
