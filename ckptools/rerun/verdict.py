"""The ladder: questions from cheap to dear, until one of them settles the matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ckptools.errors import NotComparable
from ckptools.names.patterns import select
from ckptools.rerun import restore
from ckptools.rerun.environment import environment
from ckptools.rerun.evaluate import evaluate, seeded
from ckptools.rerun.gap import gap
from ckptools.rerun.loading import Fit, put, read_weights
from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import ArmResult, Rung, Verdict


@dataclass
class Ladder:
    """One climb: what was asked, and what is known so far.

    Attributes
    ----------
    lenient: load what fits, and report the rest.
    suspects: tensor names by pattern; each is restored by itself in the restore scan.
    all_rungs: climb on after the answer.
    """

    task: Task
    checkpoint: Checkpoint
    earlier: Checkpoint | None = None
    lenient: bool = False
    suspects: Sequence[str] = ()
    all_rungs: bool = False
    rungs: list[Rung] = field(default_factory=list)
    arms: list[ArmResult] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    _evaluations: int = 0

    def climb(self) -> Verdict:
        """Return the verdict; ``rungs``, ``arms`` and ``not_judged`` tell how it came about.

        TaskError when the task breaks its protocol, NotComparable when a file does not fit it.
        """
        with seeded(0):
            self.model = self.task.build()
        self.bad = self._read(self.checkpoint)
        if self.suspects:
            self.suspected = {one: select(one, self.bad) for one in self.suspects}
        if self.earlier is None:
            return self._alone()
        self.good = self._read(self.earlier)
        if self.bad.keys() != self.good.keys():
            raise NotComparable(
                "the two checkpoints do not hold the same tensors", where=self.earlier.path
            )
        return self._step_0(self.earlier)

    def _read(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        fit: Fit = read_weights(checkpoint, self.model, lenient=self.lenient)
        self.not_judged += [f"{checkpoint.path}: {problem}" for problem in fit.problems()]
        return fit.weights

    def measure(self, weights: Mapping[str, Tensor]) -> float:
        """Return the loss of the model with ``weights``."""
        return self._values(weights)["loss"]

    def _values(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        put(self.model, weights)
        self._evaluations += 1
        return evaluate(self.task, self.model)

    def _ask(self, question: Callable[[], Rung]) -> Rung:
        """Add the rung that ``question`` gives, with its cost."""
        start, before = time.perf_counter(), self._evaluations
        rung = question()
        seconds = time.perf_counter() - start
        rung = replace(rung, evaluations=self._evaluations - before, seconds=seconds)
        self.rungs.append(rung)
        return rung

    def _alone(self) -> Verdict:
        """Return what one checkpoint alone can tell: whether its logged value comes back."""
        rung = self._ask(lambda: environment(self.task, self.checkpoint, self._values(self.bad)))
        if rung.answered:
            reason = "the logged loss does not come back: weights, code or data have changed"
        elif rung.effect is None:
            reason = "without an earlier checkpoint or a logged loss nothing can be compared"
        else:
            reason = "the logged loss comes back, so file, code and data are as they were then; "
            reason += "whether the checkpoint was healthy then takes an earlier one"
        rung = replace(rung, answered=False)
        self.rungs[-1] = rung
        return Verdict("undecided", "undecided", reason, would_decide="--earlier CHECKPOINT")

    def _step_0(self, earlier: Checkpoint) -> Verdict:
        good = 0.0
        bad = 0.0

        def logged_again() -> Rung:
            nonlocal good
            values = self._values(self.good)
            good = values["loss"]
            return environment(self.task, earlier, values)

        def compared() -> Rung:
            nonlocal bad
            bad = self.measure(self.bad)
            return gap(bad, good)

        first = self._ask(logged_again)
        verdict = None
        if first.answered:
            verdict = Verdict("refuted", "data-or-code", first.message)
            if not self.all_rungs:
                return verdict
        second = self._ask(compared)
        if second.answered:
            found = self._restore(bad, good)
            verdict = verdict or found
        return verdict or Verdict(
            "undecided",
            "undecided",
            "the weights are not worse than the earlier ones; the optimizer was not looked at",
            would_decide="a short training of both",
        )

    def _restore(self, bad: float, good: float) -> Verdict:
        units = {one.name: one.module for one in self.checkpoint.tensors()}
        listed = getattr(self.task, "modules", None) or ()
        modules = restore.members(listed, self.bad, units)
        scan = restore.Scan()

        def question() -> Rung:
            nonlocal scan
            scan = restore.scan(
                self.measure, self.bad, self.good, modules, bad_loss=bad, good_loss=good
            )
            return self._restored(scan, bad, good)

        rung = self._ask(question)
        where = scan.single
        return Verdict("supported", "weights", rung.message, where, "module" if where else "global")

    def _restored(self, scan: restore.Scan, bad: float, good: float) -> Rung:
        suspects = {
            one: restore.closed(self._with_earlier(names), bad, good)
            for one, names in getattr(self, "suspected", {}).items()
        }
        if scan.single is not None:
            message = (
                f"{scan.single}: taking it from the earlier checkpoint closes {scan.share:.0%} of "
                f"the gap, and put into the earlier checkpoint it alone raises the loss by "
                f"{scan.harm:.0%}"
            )
        elif scan.winner:
            message = (
                f"no single module explains the gap; together {', '.join(scan.winner)} close "
                f"{scan.share:.0%} of it"
            )
        else:
            message = "no part of the model explains the gap: the damage is global"
        return Rung(
            "restore-scan",
            scan.single is not None,
            scan.share if scan.winner else None,
            limit=restore.SHARE,
            message=message,
            evidence={
                "winner": list(scan.winner),
                "harm": scan.harm,
                "shams": scan.shams,
                "suspects": suspects,
                "swaps": [{"modules": list(s.modules), "loss": s.loss} for s in scan.swaps],
            },
        )

    def _with_earlier(self, names: Sequence[str]) -> float:
        taken = set(names)
        return self.measure({n: self.good[n] if n in taken else self.bad[n] for n in self.bad})
