#!/usr/bin/env bash
# pydicom 3.0.2: validate_value with RAISE accepts the range matching of a query (PS3.4 C.2.2.2.5) as a value of
# DA, TM and DT, whatever the data set is for, and an IS beyond 32 bits and a DS beyond any double. A program that
# relies on it to write legal objects (PS3.5 6.2) needs stricter checks of its own.
# Seen 2026-11-28: all five values below passed, while 19951399 (no such month) was refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pydicom==3.0.2
"$folder/venv/bin/python" - <<'PY'
from pydicom import config
from pydicom.valuerep import validate_value

PASS = [
    ("DA", "19950101-19960101"), ("TM", "101112-"), ("DT", "2024-2025"), ("IS", "99999999999"), ("DS", "1e400"),
]
for vr, value in PASS:
    validate_value(vr, value, config.RAISE)
    print(f"{vr} {value}: accepted")
try:
    validate_value("DA", "19951399", config.RAISE)
except ValueError:
    print("DA 19951399: refused")
else:
    raise SystemExit("pydicom no longer looks into a date")
PY
