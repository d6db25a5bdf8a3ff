"""`minipar doctor`: what this machine offers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "doctor",
        "say what this machine offers, and what is missing",
        "minipar doctor",
        _doctor,
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _doctor(arguments: argparse.Namespace) -> int:
    from minipar import doctor

    findings = doctor.examine()
    print(
        json.dumps(doctor.as_dict(findings), indent=1) if arguments.json else doctor.table(findings)
    )
    return 0
