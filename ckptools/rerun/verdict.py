"""The ladder: questions from cheap to dear, until one of them settles the matter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ckptools.errors import NotComparable, TaskError
from ckptools.names.patterns import select
from ckptools.rerun import blame, bounce, restore
from ckptools.rerun.arms import Sources
from ckptools.rerun.bounce import surely
from ckptools.rerun.displacement import ABSURD, overgrown, stands_out
from ckptools.rerun.dynamics import SEEDS, STEPS
from ckptools.rerun.environment import environment
from ckptools.rerun.evaluate import evaluate, excess, seeded
from ckptools.rerun.exchanges import exchanged
from ckptools.rerun.explanation import explain
from ckptools.rerun.features import feature_rung, features, outputs
from ckptools.rerun.gap import TERM_LIMIT, Gap, by_how_much, certainly_larger, gap, worst_term
from ckptools.rerun.gradients import GradientTable, gradient_norm, gradient_rung, gradient_table
from ckptools.rerun.knockout import idle_parts, knock_out_rung, knock_outs
from ckptools.rerun.loading import Fit, read_weights
from ckptools.rerun.logged import changed_totals, changed_weights
from ckptools.rerun.measuring import Measuring, Terms, log_ratio
from ckptools.rerun.statistics import ALPHA, Comparison, check_steps, compare
from ckptools.rerun.task import HeldTask
from ckptools.rerun.trainings import Place, Trainings
from ckptools.types.checkpoint import Checkpoint
from ckptools.types.verdict import RUNGS, ArmResult, Rung, Verdict
from ckptools.types.wording import say

#: what restoring a healthy part gained at most was .027 (log ratio), the least hidden damage .098
_HIDDEN_GAIN = 0.06
#: what such a part does at least to the earlier checkpoint, of which it may be half an epoch ahead
_HIDDEN_HARM = 0.02
_EARLIER = say("an earlier checkpoint of the run (--earlier)")


@dataclass
class Ladder:
    """One climb: what was asked, and what is known so far.

    Attributes
    ----------
    lenient: load what fits, and report the rest.
    suspects: tensor names by pattern; each is restored by itself in the restore scan.
    all_rungs: climb on after the answer.
    seeds, steps: the most that the short training may take.
    place: where and how it runs.
    """

    task: HeldTask
    checkpoint: Checkpoint
    place: Place
    earlier: Checkpoint | None = None
    lenient: bool = False
    suspects: Sequence[str] = ()
    all_rungs: bool = False
    seeds: Sequence[int] = SEEDS
    steps: int = STEPS
    rungs: list[Rung] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    _deciding: Rung | None = None
    _blocked: bool = False

    def climb(self) -> Verdict:
        """Return the verdict; ``rungs``, ``arms`` and ``not_judged`` tell how it came about.

        TaskError when the task breaks its protocol, NotComparable when a file does not fit it,
        SettingsError when so few seeds and steps cannot decide anything.
        """
        self._prepare()
        first = [self._environment, self._gap, self._restore] if self.earlier else [self._logged]
        last = self._dynamics if self.earlier else self._alone
        answer: Verdict | None = None
        for step in (*first, self._gradient, self._knock_out, self._features, last):
            found = step()
            if answer is None and found is not None:
                self._deciding = self.rungs[-1]
            answer = answer or found
            if self._blocked:
                break
            if answer is not None and answer.decision != "undecided" and not self.all_rungs:
                break
        return self._concluded(answer or self._unanswered())

    # -- before the first rung -------------------------------------------------------------------

    def _prepare(self) -> None:
        check_steps(len(self.seeds) * (self.steps - 1), blame.MARGIN, blame.CLIP)
        with seeded(0):
            model = self.task.build()
        self.measuring = Measuring(self.task, model)
        self.dynamics = blame.Dynamics()
        self.bad = self._read(self.checkpoint)
        self.good: dict[str, Tensor] = {}
        self.open_gap: Gap | None = None
        self._unexplained = False
        self.suspected = {one: select(one, self.bad) for one in self.suspects}
        self._clear: list[str] = []
        self.modules = self._modules()
        self.units = {name: unit for unit, names in self.modules.items() for name in names}
        if self.earlier is None:
            return
        self.good = self._read(self.earlier)
        if self.bad.keys() != self.good.keys():
            raise NotComparable(
                "the two checkpoints do not hold the same tensors", where=self.earlier.path
            )

    def _read(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        fit: Fit = read_weights(checkpoint, self.measuring.model, lenient=self.lenient)
        self.not_judged += [
            say("{path}: {problem}", path=checkpoint.path, problem=problem)
            for problem in fit.notes()
        ]
        return fit.weights

    def _modules(self) -> dict[str, list[str]]:
        units = {one.name: one.module for one in self.checkpoint.tensors()}
        listed = list(getattr(self.task, "modules", None) or ())
        found = restore.members(listed, self.bad, units)
        empty = [one for one in listed if one not in found]
        if len(empty) == len(listed) > 0:
            raise TaskError(
                f"none of the task's modules holds a weight, e.g. {empty[0]}",
                where=self.task.spec,
                next=f"they are called like {next(iter(self.bad), 'none')}",
            )
        return found

    @property
    def arms(self) -> list[ArmResult]:
        """The arms trained so far."""
        return list(self.dynamics.arms.values())

    def _ask(self, question: Callable[[], Rung]) -> Rung:
        """Add the rung that ``question`` gives, with its cost."""
        start, before = time.perf_counter(), self.measuring.evaluations
        rung = question()
        seconds = time.perf_counter() - start
        rung = replace(rung, evaluations=self.measuring.evaluations - before, seconds=seconds)
        self.rungs.append(rung)
        return rung

    # -- the rungs, with an earlier checkpoint ---------------------------------------------------

    def _environment(self) -> Verdict | None:
        earlier = self.earlier
        assert earlier is not None

        def question() -> Rung:
            self.good_values = self.measuring.repeated(self.good)
            rung = environment(self.task, earlier, self.good_values)
            return self._weights_changed(rung, earlier, self.good_values)

        rung = self._ask(question)
        if not math.isfinite(self.good_values["loss"]):
            return self._without_number(earlier.path)
        if rung.answered:
            return Verdict("refuted", "data-or-code", rung.message)
        return None

    def _without_number(self, path: str) -> Verdict:
        """Return the verdict where the loss of the only or of the earlier file is no number."""
        self._blocked = True
        fresh = self._fresh_loss()
        if not math.isfinite(fresh):
            reason = say(
                "the loss of {path} is no number, and that of a freshly built model neither: the "
                "task itself gives none",
                path=path,
            )
            more = say("a task whose evaluate gives a number for a fresh model")
            return Verdict("undecided", "undecided", reason, would_decide=more)
        if self.earlier is None and self.task.machine.autocast != "fp16":
            reason = say(
                "the loss of this checkpoint is no number, that of a freshly built model is "
                "{fresh:.4g} by the same code on the same data: the weights are to blame",
                fresh=fresh,
            )
            return Verdict("supported", "weights", reason, None, "global")
        reason = say(
            "the loss of {path} is no number, that of a freshly built model is {fresh:.4g}: "
            "this file cannot tell what healthy is",
            path=path,
            fresh=fresh,
        )
        return Verdict("undecided", "undecided", reason, would_decide=_EARLIER)

    def _fresh_loss(self) -> float:
        with seeded(0):
            model = self.task.build()
        self.measuring.evaluations += 1
        return evaluate(self.task, model)["loss"]

    def _weights_changed(
        self, rung: Rung, checkpoint: Checkpoint, values: Mapping[str, float]
    ) -> Rung:
        """Add to the rung that the loss terms are weighed otherwise than in the run, if so."""
        totals = changed_totals(self.task, checkpoint, values)
        weighed = changed_weights(self.task, self.checkpoint)
        if not totals and (rung.answered or not weighed):
            return rung
        self.dynamics.loss_weights = True
        name, now, then = (totals or weighed)[0]
        if totals:
            message = say(
                "every unweighted term comes back as logged, and {name} does not ({now:.4g} "
                "today, {then:.4g} in the log): the weights of the loss terms have changed, not "
                "code or data",
                name=name,
                now=now,
                then=then,
            )
        else:
            message = say(
                "{before}; but the term {name} weighs {now:g} today and weighed {then:g} under "
                "the settings saved in the file",
                before=rung.message,
                name=name,
                now=now,
                then=then,
            )
        evidence = rung.evidence | {"changed_weights": [list(one) for one in totals or weighed]}
        return replace(rung, answered=False, message=message, evidence=evidence)

    def _gap(self) -> Verdict | None:
        def question() -> Rung:
            self.bad_values = self.measuring.values(self.bad)
            self.good_terms = self.measuring.terms(self.good)
            self.bad_terms = self.measuring.terms(self.bad)
            losses = self.bad_values["loss"], self.good_values["loss"]
            rung, self.open_gap = gap(*losses, self.bad_terms, self.good_terms)
            self._unexplained = self.open_gap is not None
            return rung

        self._ask(question)
        return None

    def _restore(self) -> Verdict | None:
        found: list[Verdict | None] = [None]

        def question() -> Rung:
            places = exchanged(self.bad, self.good, self.modules)
            if places:
                rung, found[0] = self._exchanged(places)
            else:
                rung, found[0] = self._scanned() if self.open_gap else self._hidden()
            suspects = self._suspects(restored=found[0].module if found[0] else None)
            return replace(rung, evidence=rung.evidence | suspects)

        self._ask(question)
        return found[0]

    def _exchanged(self, places: Mapping[str, str]) -> tuple[Rung, Verdict | None]:
        """Put modules that hold another one's weights back where these belong, and look."""
        back = dict(self.bad)
        for module, origin in places.items():
            pairs = zip(self.modules[module], self.modules[origin], strict=True)
            back.update({there: self.bad[name] for name, there in pairs})
        gain = self._gain(self.measuring.terms(back))
        where = ", ".join(places)
        message = say(
            "{modules} hold what {origins} held in the earlier checkpoint, which no training "
            "does; put back, the loss changes by {change:+.1%}",
            modules=where,
            origins=", ".join(places.values()),
            change=math.expm1(-max(gain.effect, -700.0)),
        )
        harmful = gain.interval is not None and gain.interval[1] < 0.0
        rung = Rung(
            "restore-scan",
            not harmful,
            gain.effect,
            gain.interval,
            message=message,
            evidence={"exchanged": dict(places), "gain": gain.effect, "winner": list(places)},
        )
        if harmful:
            return rung, None
        return rung, Verdict("supported", "weights", message, where, "module")

    def _scanned(self) -> tuple[Rung, Verdict | None]:
        """Search for the modules that carry the gap."""
        gap_ = self.open_gap
        assert gap_ is not None
        scan = self._scan(gap_, gap_.reference)
        gain = self._better(scan)
        rung = self._restored(scan, gap_, gain)
        found = scan.single if surely(gain) else None
        if found is not None and self._stands_out(scan):
            return rung, Verdict("supported", "weights", rung.message, found, "module")
        if gap_.term is None:
            return self._like_others(rung, found)
        total, verdict = self._hidden()
        if verdict is not None:
            return total, verdict
        self.open_gap = gap_
        message = say(
            "no few modules explain why {term} has grown, so that training itself may have moved "
            "it: open",
            term=gap_.term,
        )
        evidence = total.evidence | rung.evidence
        return replace(rung, answered=False, message=message, evidence=evidence), None

    def _stands_out(self, scan: restore.Scan) -> bool:
        """Return whether a scan's winners have moved further than other modules."""
        names = {name for module in scan.named for name in self.modules[module]}
        return stands_out(self.bad, self.good, names)

    def _like_others(self, rung: Rung, module: str | None) -> tuple[Rung, Verdict | None]:
        """Tell damage where no module stands out from what healthy runs do, too.

        Data that are not the run's can look like it; without a logged value the earlier checkpoint
        must at least be better on them than a model that has learnt nothing.
        """
        if self.rungs[0].effect is None:
            fresh, now = self._fresh_loss(), self.good_values["loss"]
            if not log_ratio(fresh, now) > blame.MARGIN:
                message = say(
                    "{before}; but the earlier checkpoint ({loss:.4g}) is hardly better than a "
                    "freshly built model ({fresh:.4g}): data or code may not be those of the run",
                    before=rung.message,
                    loss=now,
                    fresh=fresh,
                )
                return replace(rung, answered=False, message=message), None
        seen = self._gain(self.good_terms)
        try:
            found = bounce.judged(rung, seen, self._left_after_training, self.steps, module)
        except NotComparable:  # the last rung will say so
            return replace(rung, answered=False), None
        rung, verdict, explained = found
        self._unexplained = not explained
        return rung, verdict

    def _left_after_training(self) -> Comparison:
        """Return how much worse than the earlier checkpoint this one is after the same training."""
        pair = self._trainings().whole()
        self.measuring.evaluations += sum(len(one.trials) for one in pair)
        losses = [[trial.evaluate["loss"] for trial in one.trials] for one in pair]
        return bounce.left(losses[0], losses[1])

    def _scan(self, gap_: Gap, good: float, harm: float = restore.LIMIT) -> restore.Scan:
        """Search by the value that shows the gap; ``good`` is what would close it."""
        term = gap_.term
        measure = self.measuring.loss if term is None else self._value_of(term)
        return restore.scan(
            measure,
            self.bad,
            self.good,
            self.modules,
            bad_loss=gap_.value,
            good_loss=good,
            own_loss=gap_.reference,
            least_harm=harm,
        )

    def _value_of(self, term: str) -> Callable[[Mapping[str, Tensor]], float]:
        if term == "total":
            return lambda weights: self.measuring.terms(weights).total
        return lambda weights: self.measuring.terms(weights).mean(term)

    def _better(self, scan: restore.Scan) -> Comparison | None:
        """Return how much better the whole loss is with the winners restored, over paired batches.

        Alpha is shared among all swaps of the scan.
        """
        if not scan.winner:
            return None
        mixed = restore.mixed(self.bad, self.good, self.modules, scan.winner)
        return self._gain(self.measuring.terms(mixed), len(scan.swaps))

    def _gain(self, restored: Terms, tried: int = 1) -> Comparison:
        pairs = zip(self.bad_terms.totals, restored.totals, strict=True)
        return compare([log_ratio(a, b) for a, b in pairs], alpha=ALPHA / tried)

    def _restored(self, scan: restore.Scan, gap_: Gap, gain: Comparison | None) -> Rung:
        where = scan.single
        if where is not None:
            message = say(
                "{module}: taking it from the earlier checkpoint closes {share:.0%} of the gap, "
                "and alone in the earlier checkpoint it makes the loss there {worse} it was",
                module=where,
                share=min(scan.share, 1.0),
                worse=by_how_much(scan.harm),
            )
        elif scan.winner:
            message = say(
                "taking {modules} from the earlier checkpoint closes {share:.0%} of the gap, but "
                "other parts do nearly as much, or there it harms too little: none is named",
                modules=", ".join(scan.winner),
                share=min(scan.share, 1.0),
            )
        else:
            message = say("no part of the model explains the gap by itself")
        return Rung(
            "restore-scan",
            True,
            scan.share if scan.winner else None,
            gain.interval if gain else None,
            restore.SHARE,
            message=message,
            evidence={
                "value": gap_.term or "loss",
                "winner": list(scan.winner),
                "harm": scan.harm,
                "gain": gain.effect if gain else None,
                "shams": scan.shams,
                "swaps": [{"modules": list(s.modules), "loss": s.loss} for s in scan.swaps],
            },
        )

    def _hidden(self) -> tuple[Rung, Verdict | None]:
        """Look for a part that does better with its old weights: progress can hide damage."""
        outer: dict[restore.Group, Terms] = {}
        for part in restore.outer_parts(self.modules):
            mixed = restore.mixed(self.bad, self.good, self.modules, part)
            outer[part] = self.measuring.terms(mixed)
        gains = {part: self._gain(terms, len(outer)) for part, terms in outer.items()}
        best = max(gains, key=lambda part: gains[part].effect)
        gap_ = self._hidden_gap(outer, gains[best], best)
        message = say(
            "no part of the model does better with its earlier weights (at best {effect:+.1%})",
            effect=gains[best].effect,
        )
        evidence = {
            "parts": {restore.label(part): gain.effect for part, gain in gains.items()},
        }
        rung = Rung(
            "restore-scan",
            False,
            gains[best].effect,
            gains[best].interval,
            _HIDDEN_GAIN,
            message=message,
            evidence=evidence,
        )
        if gap_ is None:
            return self._overgrown(rung)
        self.open_gap, least = gap_
        self._unexplained = True
        scan = self._scan(self.open_gap, least, _HIDDEN_HARM)
        gain = self._better(scan)
        found = self._restored(scan, self.open_gap, gain)
        if scan.single is not None and surely(gain) and self._stands_out(scan):
            verdict = Verdict("supported", "weights", found.message, scan.single, "module")
            return replace(found, evidence=evidence | found.evidence), verdict
        message = say("a part of the model does better with its earlier weights, none explains it")
        return replace(rung, message=message, evidence=evidence | found.evidence), None

    def _overgrown(self, rung: Rung) -> tuple[Rung, Verdict | None]:
        """Name what has grown beyond what training does, though no loss feels it."""
        names = overgrown(self.bad, self.good)
        if not names:
            return rung, None
        where = ", ".join(dict.fromkeys(self.units[name] for name in names))
        message = say(
            "{name} holds an element of {size:.3g}, more than any matrix of the earlier checkpoint "
            "by a factor of {times:g} at least: no training does that, though the loss hardly "
            "feels it",
            name=names[0],
            size=float(self.bad[names[0]].abs().max()),
            times=ABSURD,
        )
        evidence = rung.evidence | {"overgrown": names, "winner": where.split(", ")}
        rung = replace(rung, answered=True, message=message, evidence=evidence)
        return rung, Verdict("supported", "weights", message, where, "module")

    def _hidden_gap(
        self, outer: Mapping[restore.Group, Terms], gain: Comparison, best: restore.Group
    ) -> tuple[Gap, float] | None:
        """Return the value to search by and what restoring the best part makes of it."""
        sure = gain.interval is not None and gain.interval[0] > 0.0
        if sure and math.isfinite(gain.effect) and gain.effect > _HIDDEN_GAIN:
            value = Gap("total", self.bad_terms.total, self.good_terms.total)
            return value, outer[best].total
        for terms in outer.values():
            name, ratio = worst_term(self.bad_terms, terms)
            if name is None or ratio <= TERM_LIMIT:
                continue
            tried = len(outer) * len(self.bad_terms.weights or terms.by_batch[0])
            if certainly_larger(self.bad_terms, terms, name, tried):
                value = Gap(name, self.bad_terms.mean(name), self.good_terms.mean(name))
                return value, terms.mean(name)
        return None

    def _suspects(self, restored: str | None) -> dict[str, dict[str, float]]:
        """Restore each suspect by itself; one that closes little of the gap is cleared."""
        blamed = set((restored or "").split(", "))
        found = {}
        for pattern, names in self.suspected.items():
            taken = set(names)
            mixed = {n: self.good[n] if n in taken else self.bad[n] for n in self.bad}
            found[pattern] = self._part_closed(mixed)
            units = {self.units[name] for name in names}
            if not units & blamed and found[pattern] < restore.SHARE:
                self._clear.append(pattern)
        return {"suspects": found}

    def _part_closed(self, mixed: Mapping[str, Tensor]) -> float:
        """Return which part of the gap is closed; without a gap, by how much the loss falls."""
        gap_ = self.open_gap
        if gap_ is None:
            return -excess(self.measuring.loss(mixed), self.bad_values["loss"])
        measure = self.measuring.loss if gap_.term is None else self._value_of(gap_.term)
        if gap_.value <= gap_.reference:
            return -excess(measure(mixed), gap_.value)
        return restore.closed(measure(mixed), gap_.value, gap_.reference)

    def _gradient(self) -> Verdict | None:
        found: list[Verdict | None] = [None]

        def question() -> Rung:
            table = gradient_table(self.measuring, self.bad, self.units)
            earlier = None if self.earlier is None else gradient_norm(self.measuring, self.good)
            rung, wild = gradient_rung(table, earlier)
            if wild and earlier is not None and math.isfinite(earlier):
                rung, found[0] = self._gradient_scan(rung, table, earlier)
            return rung

        self._ask(question)
        return found[0]

    def _gradient_scan(
        self, rung: Rung, table: GradientTable, earlier: float
    ) -> tuple[Rung, Verdict | None]:
        """Search for the module that makes the gradient wild, as the restore scan does."""
        scan = restore.scan(
            lambda weights: gradient_norm(self.measuring, weights),
            self.bad,
            self.good,
            self.modules,
            bad_loss=table.total,
            good_loss=earlier,
            least_harm=math.exp(2.0),
        )
        evidence = rung.evidence | {"winner": list(scan.winner), "harm": scan.harm}
        broken = not math.isfinite(table.total)
        where = scan.single
        if not broken:  # a norm that is large but finite has harmless reasons, too
            rung = replace(rung, evidence=evidence)
            if where is None or not self._unexplained:
                return rung, None
            message = say(
                "{modules} make one batch's gradient {times:.0f} times as large, in both "
                "directions, and a loss term has grown beside it",
                modules=where,
                times=table.total / earlier,
            )
            rung = replace(rung, answered=True, message=message)
            return rung, Verdict("supported", "weights", message, where, "module")
        if where:
            message = say(
                "one batch's gradient is no finite number, and with {module} from the earlier "
                "checkpoint it is: the first step of training would break on it",
                module=where,
            )
        else:
            message = say(
                "one batch's gradient is no finite number, the earlier checkpoint's is: the first "
                "step of training would break on these weights"
            )
        scope = "module" if where else "global"
        rung = replace(rung, answered=True, message=message, evidence=evidence)
        return rung, Verdict("supported", "weights", message, where, scope)

    def _knock_out(self) -> Verdict | None:
        def question() -> Rung:
            now = knock_outs(self.measuring, self.bad, list(self.modules))
            if self.earlier is None:
                return knock_out_rung(now, None)
            idle = idle_parts(now)  # what else carried something before is of no interest
            return knock_out_rung(now, knock_outs(self.measuring, self.good, idle) if idle else {})

        self._ask(question)
        return None

    def _features(self) -> Verdict | None:
        def question() -> Rung:
            units = list(self.modules)
            held, labels = outputs(self.measuring, self.bad, units)
            past: dict[str, Tensor] = {}
            if self.earlier:
                past, _ = outputs(self.measuring, self.good, units)
            return feature_rung(features(held, labels, past), features(past, labels, {}))

        self._ask(question)
        return None

    # -- the last rung ---------------------------------------------------------------------------

    def _dynamics(self) -> Verdict | None:
        return self._trained(self._against_earlier)

    def _trained(self, ask: Callable[[], tuple[Rung, Verdict | None]]) -> Verdict | None:
        """Train a few steps, where the optimizer states can be loaded."""
        found: list[Verdict | None] = []

        def question() -> Rung:
            try:
                rung, verdict = ask()
                self.measuring.evaluations += rung.evidence["trials"]  # each ends with one
            except NotComparable as error:
                reason = say("no training could be compared: {error}", error=str(error))
                rung = Rung("dynamics", False, message=reason)
                verdict = Verdict("undecided", "undecided", reason, would_decide=error.next)
            found.append(verdict)
            return rung

        self._ask(question)
        return found[0]

    def _against_earlier(self) -> tuple[Rung, Verdict | None]:
        self.dynamics.before = {
            "as-is": self.bad_values["loss"],
            "earlier": self.good_values["loss"],
        }
        offset = log_ratio(self.bad_terms.total, self.good_terms.total)
        self.dynamics.offset = offset if math.isfinite(offset) else 0.0
        return self._trainings().against_earlier(
            lambda rung: self._open_signs() or self.dynamics.cleared(rung)
        )

    def _trainings(self) -> Trainings:
        sources = Sources(
            self.task, self.measuring.model, self.checkpoint, self.bad, self.earlier, self.good
        )
        return Trainings(
            self.place,
            sources,
            self.dynamics,
            self.bad_values["loss"],
            seeds=self.seeds,
            steps=self.steps,
        )

    def _open_signs(self) -> Verdict | None:
        """Return an open verdict where an earlier rung saw something that no rung has explained."""
        if not self._unexplained:
            return None
        reason = say(
            "trained on it does no worse than the earlier checkpoint, but before training a loss "
            "term or part had become worse, and no module explains it"
        )
        more = say(
            "the checkpoint just before this one as --earlier, a larger validation set, or the "
            "loss that the run logged (the task's logged)"
        )
        return Verdict("undecided", "undecided", reason, would_decide=more)

    # -- without an earlier checkpoint -----------------------------------------------------------

    def _logged(self) -> Verdict | None:
        """Ask whether the value that was logged for this checkpoint comes back."""

        def question() -> Rung:
            self.bad_values = self.measuring.repeated(self.bad)
            rung = environment(self.task, self.checkpoint, self.bad_values)
            rung = self._weights_changed(rung, self.checkpoint, self.bad_values)
            return replace(rung, answered=False)

        self._ask(question)
        if not math.isfinite(self.bad_values["loss"]):
            return self._without_number(self.checkpoint.path)
        return None

    def _alone(self) -> Verdict | None:
        return self._trained(self._by_itself)

    def _by_itself(self) -> tuple[Rung, Verdict | None]:
        return self._trainings().by_itself(self.bad_values["loss"])

    def _unanswered(self) -> Verdict:
        """Return what the climb leaves open, and why."""
        if self.earlier is not None:
            reason = say("no rung has answered")
            return Verdict("undecided", "undecided", reason, would_decide=say("more seeds"))
        first = self.rungs[0]
        if first.effect is None:
            reason = say(
                "without an earlier checkpoint or a logged loss the weights cannot be compared "
                "with anything"
            )
        elif first.limit is not None and abs(first.effect) > first.limit:
            reason = say("the logged loss does not come back: weights, code or data have changed")
        else:
            reason = say(
                "the logged loss comes back, so file, code and data are as they were then; "
                "whether the checkpoint was healthy then takes an earlier one"
            )
        return Verdict("undecided", "undecided", reason, would_decide=_EARLIER)

    def _concluded(self, verdict: Verdict) -> Verdict:
        """Return the verdict with what the whole climb adds to it."""
        deciding = self._deciding or self.rungs[-1]
        climbed = {one.name for one in self.rungs}
        possible = RUNGS if self.earlier else (*RUNGS[:1], *RUNGS[3:])
        if self.earlier is None:
            self.not_judged.append(
                say("gap and restore scan need an earlier checkpoint: weights were not compared")
            )
        verdict = replace(
            verdict,
            effect=deciding.effect,
            interval=deciding.interval,
            cleared=tuple(self._clear),
            not_needed=tuple(name for name in possible if name not in climbed),
        )
        return replace(verdict, explanation=explain(verdict, deciding, self.rungs))
