from __future__ import annotations

from functools import partial

from ckptools.rules.file.hostile_object import KINDS
from tests.builders.evidence import fault, with_faults

FIRES_ON = {kind: partial(with_faults, [fault(kind)]) for kind in sorted(KINDS)}
SILENT_ON = {"no_fault": partial(with_faults, []), "another": partial(with_faults, [fault("odd")])}
