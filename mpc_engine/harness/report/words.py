"""What a report says around its figures: to a board first, then to those who check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mpc_engine.harness.blocks import Chapter


@dataclass(frozen=True)
class Introduction:
    """How a chapter begins.

    Attributes:
        title, question: what the chapter is called, and what it answers, in a few words.
        plain: paragraphs for whoever has to decide.
        checking: a paragraph for whoever wants to check: what is computed from what, and how.
        about: kinds of expectations that belong here.
    """

    title: str
    question: str
    plain: tuple[str, ...]
    checking: str
    about: frozenset[str]


INTRODUCTIONS: Final[Mapping[Chapter, Introduction]] = {
    "utility": Introduction(
        "Utility",
        "Are the published numbers worth having?",
        (
            "Registries pool their records so that rare tumours can be studied at all. What is published "
            "carries deliberate noise, and small groups are hidden. This chapter shows what is left: how "
            "far each published number is from the true one, which is known here because the records are "
            "public or made up, and how many groups can be shown.",
            "The same numbers are also worked out in four other ways: each registry by itself; every "
            "registry hiding its small numbers before they are added, as is usual today; a trusted "
            "institution that sees all records and adds the same noise; and every registry adding noise of "
            "its own. Pooling under this engine is to come close to the trusted institution – without "
            "anybody having to be one.",
        ),
        "“Truth” is counted from the registered records of all parties without noise, by the code with "
        "which a silo counts; where an expectation names a reference file, that truth is checked against "
        "published software. Expected errors come from the exact noise tables where they can, otherwise "
        "from simulated draws whose number is stated; in tables of single statistics curator and local noise "
        "are drawn once, as a release is. “Trusted curator” is OpenDP at the same ε. Masking leaves out at "
        "each site the counts of 1 to k − 1; what is hidden counts as 0, unless the table says otherwise.",
        frozenset({"truth", "pooled", "noise", "published", "coverage", "curator", "keeps"}),
    ),
    "privacy": Introduction(
        "Privacy",
        "What could somebody learn who should not?",
        (
            "The promise is that nobody – no registry, no helper, no analyst – learns more about one "
            "patient than the agreed privacy loss ε allows, and that nobody but the registry itself sees "
            "its numbers. Here attackers try: they ask again and again, compare two questions that differ "
            "by few patients, subtract what they know already, guess whether somebody is among the "
            "patients, or collect everything that passes through a party. What they achieve stands beside "
            "the most that theory grants them; more, beyond what chance explains, would be a fault.",
            "An attack that fails proves nothing by itself. The proofs are in the protocols and in the "
            "verified noise tables; the attacks would show a mistake in building them.",
        ),
        "Empirical ε is a lower bound with its confidence; it can be far below the stated ε without "
        "anything being wrong, so each audit and each attack must also show that it would have found a fault "
        "(its power): what there would be without noise. "
        "Intervals are Clopper–Pearson's, corrected for the number of event sets. The noise is the "
        "operating system's in every run: only schedules, records and the attackers' coins follow a "
        "scenario's seed.",
        frozenset({"audit", "attack", "budget"}),
    ),
    "robustness": Introduction(
        "Robustness",
        "What happens when something breaks?",
        (
            "Machines are switched off, lines are cut, certificates run out, a hospital holds an outdated "
            "document, and somebody may not play by the rules. Such faults are caused here on purpose, at "
            "chosen moments. Afterwards nobody may have published anything that was not agreed, no privacy "
            "budget may be spent without being booked, nothing may be lost, and the parties must serve "
            "again.",
        ),
        "After every scenario, whether it lists it or not, four things are looked at: every question "
        "ended as expected, every fault came, every party serves, and what `docs/faults.md` promises after "
        "every fault holds – no party has spent less than the ε of what could have been opened, at most one "
        "release per session, and audit chains that verify. Times are on the clock of the stage: virtual "
        "time in one process, real time elsewhere.",
        frozenset({"outcome", "same", "detected", ""}),
    ),
    "cost": Introduction(
        "Cost",
        "How much time, data and machine does it take?",
        (
            "Computing on shares needs messages to go back and forth between the parties; how long a "
            "release takes depends mostly on how far apart they are and how large the table is. This "
            "chapter says what was measured, compares it with what the engine predicts from its own "
            "declared costs, and works out what other lines and larger tables would take.",
        ),
        "Rounds and bytes are counted by the parties themselves; bytes are payload, without TLS and TCP. "
        "CPU and memory are those of whole processes, so only the stages `processes` and `network` can "
        "tell parties apart. Under `network`, delay, loss and rate act below TCP. Wall times are those of "
        "the machine named with each scenario and vary with what else runs on it.",
        frozenset({"cost", "trips"}),
    ),
}
"""Every chapter's beginning, in the order of the report."""

HEADLINES: Final = ("keeps", "curator", "coverage", "audit", "attack", "detected", "trips", "cost")
"""Kinds of expectations whose findings are among the first things to read, in this order."""

NOTICE: Final = (
    "This report holds true counts beside published ones, small ones too. It may be passed on only if all of "
    "its records are public or made up; made from a registry's own records it must stay where those must "
    "stay, and so must `report.json` and everything else in its folder."
)
"""What whoever holds a report must know first; it is in `report.json` too."""
AUTHORS: Final = "As its author describes it, written before it was played:"

READING: Final = (
    "Every number in the tables, pictures and findings of this report was computed from the runs it lists, "
    "by the commands it lists; none was written by hand. What introduces a chapter or a scenario was written "
    "beforehand: it says what is looked for, and no run has confirmed it unless a finding says so. "
    "`report.json` beside this page holds the same numbers.",
    "A *scenario* is a study: registries with their records, a helper perhaps, questions, a network, and "
    "what goes wrong. An *expectation* is what must come of it. A *stage* is where it was played: `memory` "
    "is one process on a clock of its own, `processes` is one process per party on one machine with real "
    "encrypted connections, and `network` gives each of them a network of its own with real delay, loss "
    "and rates.",
)
LIMITS: Final = (
    "All parties ran on one machine under one administrator: what people and organisations do is not tested "
    "here, and neither is other hardware.",
    "The protocols protect against up to t curious parties out of n = 2t + 1 that follow them. Tampering is "
    "detected where the text says so; it is not excluded in general.",
    "A measured ε is a lower bound on the loss, never a proof of the upper one.",
    "Public and made-up records stand for those of registries; whether codings of other registries fit their "
    "mappings is checked where they are registered.",
)
"""What a report cannot show."""
