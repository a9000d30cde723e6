"""What was tried of candidates, and what the measurement chose of it."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning_mbir.methods.candidates import Candidate
from lightning_mbir.methods.search import Settings


@dataclass(frozen=True)
class Trial:
    """Settings and how they did.

    Attributes:
        candidate: number of the candidate.
        settings: as tried.
        missed: of each fold the errors of its parts, as ``Fold.errors`` gives them; infinite where the method could not
            do it. Of settings that fell behind, only of the first folds.
        seconds: that it took.
        whole: whether all folds were tried.
    """

    candidate: int
    settings: Settings
    missed: tuple[tuple[float, ...], ...]
    seconds: float
    whole: bool = True

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Trial:
        """What ``asdict`` gave, after it was JSON, in which infinity is null."""
        missed = tuple(tuple(math.inf if e is None else float(e) for e in fold) for fold in plain["missed"])
        return cls(plain["candidate"], plain["settings"], missed, plain["seconds"], plain["whole"])

    @property
    def errors(self) -> list[float]:
        """Of each fold, relative: ``||A x - y|| / ||y||`` of what was held out."""
        return [math.sqrt(sum(fold)) for fold in self.missed]

    @property
    def error(self) -> float:
        """Root mean square over the folds."""
        return math.sqrt(sum(map(sum, self.missed)) / len(self.missed))

    def beats(self, other: Trial) -> bool:
        """Whether it is better by more than chance: than the standard error of what it gains on each part."""
        if not self.whole or not self.error < other.error:
            return False
        if not math.isfinite(other.error):
            return True
        pairs = [pair for folds in zip(self.missed, other.missed, strict=True) for pair in zip(*folds, strict=True)]
        gains = [math.log(max(theirs, 1e-30) / max(ours, 1e-30)) for ours, theirs in pairs]
        spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
        return statistics.mean(gains) > spread


@dataclass(frozen=True)
class Tuning:
    """What was tried, and what was chosen.

    Attributes:
        candidates: in the order of preference: the first is what is taken where none is clearly better.
        trials: all of them, in order.
        chosen: the trial that is taken.
        what: that was held out, such as ``views``.
        held: how many in each fold.
        open: whether there is a wedge that was not measured, of which nothing held out can tell.
        evidence: by how many nats a pixel the prior of the run finds the object more probable than ``rival`` does
            (``log_evidence``), where there is a rival.
        rival: name of that prior.
    """

    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]
    chosen: Trial
    what: str
    held: tuple[int, ...]
    open: bool
    evidence: float | None = None
    rival: str | None = None

    @property
    def candidate(self) -> Candidate:
        """What is to be run: the chosen method, its settings and its prior."""
        return replace(self.candidates[self.chosen.candidate], settings=self.chosen.settings)

    def best(self, candidate: int) -> Trial | None:
        """The best trial of a candidate; none where none of it was made."""
        own = [trial for trial in self.trials if trial.candidate == candidate and trial.whole]
        return min(own, key=lambda trial: trial.error, default=None)

    def shipped(self, candidate: int) -> Trial | None:
        """The first trial of a candidate: its settings as they were given."""
        return next((trial for trial in self.trials if trial.candidate == candidate), None)

    @property
    def lines(self) -> list[str]:
        """What was chosen and why, in two or three lines."""
        chosen, changed = self.candidate, self.changes
        told = ", ".join(f"{key} {value:g}" for key, value in changed.items()) or "options as they were"
        if self.open:
            told += f" ({self.what} leave a wedge out, of which none that is held out can tell)"
        held = f"{self.held[0]} of the {self.what} held out, {len(self.held)} times"
        others, least = [], True
        for k, candidate in enumerate(self.candidates):
            best = self.best(k)
            if best is not None and k != self.chosen.candidate:
                others.append(f"{candidate.name} {best.error:.4f}")
                least = least and self.chosen.error <= best.error
        if changed and (before := self.shipped(self.chosen.candidate)) is not None:
            others.append(f"as shipped {before.error:.4f}")
        tried = "1 setting tried" if len(self.trials) == 1 else f"{len(self.trials)} settings tried"
        rest = f" against {', '.join(others)}" if others else ""
        given = sum(not candidate.reference for candidate in self.candidates) == 1 and not self.searched
        why = "because its" if least and not given else "its"  # a method that was given need not be the best
        lines = [
            f"{'given' if given else 'chosen'}: {chosen.name}, {told}",
            f"{why} error on {held}, is {self.chosen.error:.4f}{rest} ({tried})",
        ]
        if self.evidence is not None:
            side = "more" if self.evidence >= 0 else "less"
            lines.append(
                f"the prior of the run finds the object {side} probable than prior {self.rival} does, by "
                f"{abs(self.evidence):.3f} nats a pixel" + (", which decides over an arc" if self.open else "")
            )
        return lines

    def warning(self, prior: str) -> str | None:
        """That the prior does not know this object, where a method without one predicts it better.

        Where views leave a wedge out, nothing that is held out tells whether a prior is right: a method that invents
        what lies there may predict the views that there are better, and one that is right worse. There it is said of a
        prior that finds the object less probable than its rival does, and without a rival that nothing tells.

        Args:
            prior: name of the prior of the run.
        """
        if self.open and self.evidence is not None:
            if self.evidence >= 0 or not self.candidate.chosen.needs_prior:
                return None
            return (
                f"this object is not what prior {self.candidate.prior or prior} knows: prior {self.rival} finds it "
                f"more probable, by {-self.evidence:.3f} nats a pixel, and {self.what} leave a wedge out, where the "
                "prior decides; --method auto takes none"
            )
        if self.open and len({candidate.chosen.needs_prior for candidate in self.candidates}) == 2:
            return (
                f"{self.what} leave a wedge out, and those held out do not tell whether a prior is right about what "
                "lies there: compare --method dds with --method admm_tv, and take which you know to fit the object"
            )
        if not self.candidate.chosen.needs_prior:
            return None
        for k, candidate in enumerate(self.candidates):
            best = self.best(k)
            if best is None or candidate.chosen.needs_prior or not best.beats(self.chosen):
                continue
            better = f"{candidate.method} predicts {self.what} that were held out better"
            return (
                f"this object is not what prior {self.candidate.prior or prior} knows: {better} ({best.error:.4f} "
                f"against {self.chosen.error:.4f}); --method auto takes what is best"
            )
        return None

    @property
    def searched(self) -> bool:
        """Whether options of what was taken were searched."""
        return sum(trial.candidate == self.chosen.candidate for trial in self.trials) > 1

    @property
    def changes(self) -> Settings:
        """What differs from the candidate as it was given."""
        full = self.candidates[self.chosen.candidate].full
        return {key: value for key, value in self.chosen.settings.items() if full.get(key) != value}

    @property
    def data(self) -> dict[str, Any]:
        """All of it in plain data, for ``tuning.json``."""
        return {
            "chosen": {**asdict(self.candidate), "error": self.chosen.error},
            "held_out": {"what": self.what, "in_each_fold": list(self.held), "cannot_tell": self.blind},
            **({} if self.evidence is None else {"evidence": {"over": self.rival, "nats_a_pixel": self.evidence}}),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "trials": [{**asdict(trial), "error": trial.error} for trial in self.trials],
        }

    @property
    def blind(self) -> str:
        """What none of this can tell."""
        wedge = (
            "what lies in the directions that were not measured, and so how much to regularise; " if self.open else ""
        )
        return f"{wedge}what all candidates get wrong alike, and what is wrong in the model of the measurement itself"
