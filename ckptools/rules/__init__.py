"""Judge: one file per rule, one folder per family; evidence in, findings out."""

from ckptools.rules.registry import Rule, found, rule, rules
from ckptools.rules.runner import judge

__all__ = ["Rule", "found", "judge", "rule", "rules"]
