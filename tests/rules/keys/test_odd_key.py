from __future__ import annotations

from functools import partial

from tests.builders.evidence import fault, with_faults

FIRES_ON = {"invisible": partial(with_faults, [fault("odd-key", scope="object")])}
SILENT_ON = {"no_fault": partial(with_faults, []), "another": partial(with_faults, [fault("odd")])}
