"""The ladder: questions from cheap to dear, until one of them settles the matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ckptools.errors import NotComparable
from ckptools.names.patterns import select
from ckptools.rerun import restore
from ckptools.rerun.arms import Arm
from ckptools.rerun.blame import blamed, healthy
from ckptools.rerun.dynamics import run_arm
from ckptools.rerun.environment import environment
from ckptools.rerun.evaluate import evaluate, excess, seeded
from ckptools.rerun.gap import gap
from ckptools.rerun.loading import Fit, put, rates, read_weights
from ckptools.rerun.task import Task
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import ArmResult, Rung, Verdict
from ckptools.types.wording import join, say


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
        self.not_judged += [
            say("{path}: {problem}", path=checkpoint.path, problem=problem)
            for problem in fit.problems()
        ]
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
            reason = say("the logged loss does not come back: weights, code or data have changed")
        elif rung.effect is None:
            reason = say("without an earlier checkpoint or a logged loss nothing can be compared")
        else:
            reason = say(
                "the logged loss comes back, so file, code and data are as they were then; whether "
                "the checkpoint was healthy then takes an earlier one"
            )
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
        else:
            verdict = verdict or self._hidden(bad, good)
        if verdict is None or self.all_rungs:
            last = self._dynamics(earlier)
            verdict = verdict or last
        return verdict

    def _dynamics(self, earlier: Checkpoint) -> Verdict:
        """Train a few steps from both, where the optimizer states of both can be loaded."""
        found: list[Verdict] = []

        def question() -> Rung:
            try:
                rung, verdict = self._trained(earlier)
            except NotComparable as error:
                reason = say("no training could be compared: {error}", error=str(error))
                rung = Rung("dynamics", False, message=reason)
                verdict = Verdict("undecided", "undecided", reason, would_decide=error.next)
            found.append(verdict)
            return rung

        self._ask(question)
        return found[0]

    def _trained(self, earlier: Checkpoint) -> tuple[Rung, Verdict]:
        arms = {
            "as-is": Arm("as-is", self.checkpoint, self.bad),
            "earlier": Arm("earlier", earlier, self.good),
        }
        self._run(arms.values())
        start = {one: self.measure(w) for one, w in (("as-is", self.bad), ("earlier", self.good))}
        rung, broken = healthy(self.arms, start)
        if broken is None:
            more = say("more seeds, or more steps")
            return rung, Verdict("undecided", "undecided", rung.message, would_decide=more)
        if (
            any(
                one.name == "restore-scan" and not one.answered and (one.effect or 0) > one_limit
                for one in self.rungs
                for one_limit in (restore.LIMIT,)
            )
            and not broken
        ):
            reason = say("parts of the model do better with their earlier weights, no single one")
            more = say("an evaluation on more data")
            return rung, Verdict("undecided", "undecided", reason, would_decide=more)
        if not broken:
            return rung, Verdict("refuted", "none", rung.message)
        causes = [Arm("optimizer-reset", self.checkpoint, self.bad, optimizer="reset")]
        own = rates(self.checkpoint)
        if own != rates(earlier):
            causes.append(Arm("earlier-at-these-rates", earlier, self.good, rates=own))
        self._run(causes)
        return blamed(rung, self.arms, start)

    def _run(self, arms: Iterable[Arm]) -> None:
        for arm in arms:
            self.arms.append(run_arm(self.task, self.model, arm))
            self._evaluations += len(self.arms[-1].trials)

    def _modules(self) -> dict[str, list[str]]:
        units = {one.name: one.module for one in self.checkpoint.tensors()}
        listed = getattr(self.task, "modules", None) or ()
        return restore.members(listed, self.bad, units)

    def _hidden(self, bad: float, good: float) -> Verdict | None:
        """Return a verdict when one part does better with its old weights, else None."""
        least = bad

        def question() -> Rung:
            nonlocal least
            least = restore.floor(self.measure, self.bad, self.good, self._modules())
            effect = excess(bad, least)
            word = say("a part") if effect > restore.LIMIT else say("no part")
            message = say(
                "{word} of the model does better with its earlier weights ({effect:+.1%})",
                word=word,
                effect=effect,
            )
            return Rung("restore-scan", False, effect, limit=restore.LIMIT, message=message)

        rung = self._ask(question)
        if not rung.effect or rung.effect <= restore.LIMIT:
            return None
        verdict = self._restore(bad, least, good)
        return verdict if verdict.module else None

    def _restore(self, bad: float, good: float, own: float | None = None) -> Verdict:
        modules = self._modules()
        scan = restore.Scan()

        def question() -> Rung:
            nonlocal scan
            scan = restore.scan(
                self.measure,
                self.bad,
                self.good,
                modules,
                bad_loss=bad,
                good_loss=good,
                own_loss=own,
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
            message = say(
                "{single}: taking it from the earlier checkpoint closes {share:.0%} of "
                "the gap, and put into the earlier checkpoint it alone raises the loss "
                "by {harm:.0%}",
                single=scan.single,
                share=scan.share,
                harm=scan.harm,
            )
        elif scan.winner:
            message = say(
                "no single module explains the gap; together {winner} close {share:.0%} of it",
                winner=join(scan.winner),
                share=scan.share,
            )
        else:
            message = say("no part of the model explains the gap: the damage is global")
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
