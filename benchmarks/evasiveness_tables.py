"""Tables that show the read-out of the reply classifier beside tf-idf."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from evasiveness_readings import second_refusals, second_small, second_styles
from evasiveness_readout import (
    HUMAN,
    KINDS,
    READ_OUT,
    TFIDF,
    Cases,
    Flags,
    Floats,
    Ints,
    decide,
    design,
    logits,
    own_splits,
    refusal_splits,
    small_splits,
    style_splits,
)
from evasiveness_rows import STYLES
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from cai.evasiveness.classifier import Style, classify
from cai.evasiveness.readout import Classifier
from cai.lm.load import LanguageModel

Score = Callable[[Floats], Floats]
DRAWS = 1000
PARTS = 5
DECISIONS = ("compliance", "refusal")


def f1_scores(tables: Floats) -> Floats:
    """F1 of each class from tables of truth by finding: [..., K, K] to [..., K]."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    total = tables.sum(-1) + tables.sum(-2)
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)


def with_interval(truth: Ints, found: Ints, prompts: NDArray[np.str_], score: Score) -> str:
    """Write a score of the table of truth by finding, with an interval clustered by prompt."""
    size = int(max(truth.max(), found.max())) + 1
    _, cluster = np.unique(prompts, return_inverse=True)
    tables = np.zeros((cluster.max() + 1, size, size))
    np.add.at(tables, (cluster, truth, found), 1.0)
    n = len(tables)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    scores = score(np.einsum("dn,nij->dij", drawn.astype(np.float64), tables))
    low, high = np.quantile(scores, [0.025, 0.975])
    return f"{float(score(tables.sum(0))):.3f} [{low:.3f}, {high:.3f}]"


def macro_f1(tables: Floats) -> Floats:
    """Mean of the classes' F1."""
    mean: Floats = f1_scores(tables).mean(-1)
    return mean


def write_line(name: str, rows: Flags, cells: list[str]) -> None:
    """Print one line of a table."""
    print(f"  {name:34} {int(rows.sum()):5}  " + "  ".join(f"{cell:>20}" for cell in cells))


def report_refusal(cases: Cases) -> None:
    """Print macro-F1 of refusal or compliance, with whole systems and with families left out."""
    heads = "  ".join(f"{kind:>20}" for kind in KINDS)
    for family in (False, True):
        found = {kind: logits(cases, kind, refusal_splits(cases, family)) for kind in KINDS}
        left = "family" if family else "system"
        print(f"Refusal, macro-F1, {left + ' left out':17}  rows  {heads}")
        for name in (*HUMAN, "pooled"):
            rows = cases.human if name == "pooled" else cases.source == name
            cells = [
                with_interval(
                    cases.refusal[rows], decide(found[kind][rows])[0], cases.prompt[rows], macro_f1
                )
                for kind in KINDS
            ]
            write_line(name, rows, cells)
        for name in HUMAN:
            rows = cases.source == name
            refused = decide(found[READ_OUT][rows])[0]
            report_confusions(f"Read-out, {name}", cases.refusal[rows], refused, DECISIONS)


def report_reach(cases: Cases) -> None:
    """Print what is reached when other prompts of the judged source itself are learnt from."""
    rows = cases.source == "chatgpt_refusals"
    found = np.zeros(len(rows), dtype=np.int64)
    folds = GroupKFold(PARTS, shuffle=True, random_state=0)
    numbers = np.flatnonzero(rows)
    for learnt, judged in folds.split(numbers, groups=cases.prompt[rows]):
        keep = np.zeros(len(rows), dtype=np.bool_)
        keep[numbers[learnt]] = True
        x = design(cases, TFIDF, keep, styles=False)
        model = LogisticRegression(C=3.0, max_iter=1000).fit(x[keep], cases.refusal[keep])
        found[numbers[judged]] = model.predict(x[numbers[judged]])
    cell = with_interval(cases.refusal[rows], found[rows], cases.prompt[rows], macro_f1)
    write_line("chatgpt_refusals, learnt from it", rows, ["", cell])


def report_confusions(name: str, truth: Ints, found: Ints, labels: Sequence[str]) -> None:
    """Print labels in rows and what the read-out found in columns."""
    print(f"{name}, labels in rows, findings in columns: " + ", ".join(labels))
    for number, label in enumerate(labels):
        counts = np.bincount(found[truth == number], minlength=len(labels))
        print(f"  {label:34}" + "".join(f"{count:6}" for count in counts))


def write_styles(truth: Ints, found: Mapping[str, Ints], prompts: NDArray[np.str_]) -> None:
    """Print a line for each style: F1 of everybody who found styles."""
    for number, style in enumerate(STYLES):

        def one(tables: Floats, number: int = number) -> Floats:
            return f1_scores(tables)[..., number]

        cells = [with_interval(truth, each, prompts, one) for each in found.values()]
        write_line(style, truth == number, cells)


def report_style(cases: Cases) -> None:
    """Print F1 of each style with the publication left out, and the read-out's confusions."""
    styled = np.char.startswith(cases.source, "style/")
    truth, prompts = cases.style[styled], cases.prompt[styled]
    found = {kind: decide(logits(cases, kind, style_splits(cases))[styled])[1] for kind in KINDS}
    print("Style, F1, publication left out (labels by a language model)")
    write_styles(truth, found, prompts)
    report_confusions("Read-out, styles", truth, found[READ_OUT], STYLES)


def report_small(cases: Cases) -> None:
    """Print F1 on replies of the project's own systems, each left out, and confusions of each."""
    judged = (cases.source == "small") & cases.held
    truth, prompts = cases.style[judged], cases.prompt[judged]
    found = {kind: decide(logits(cases, kind, small_splits(cases))[judged])[1] for kind in KINDS}
    print("Own small systems, F1, system left out (labels by a language model)")
    write_styles(truth, found, prompts)
    for system in sorted(set(cases.system[judged])):
        rows = cases.system[judged] == system
        report_confusions(f"Read-out, {system}", truth[rows], found[READ_OUT][rows], STYLES)


OWN = (
    ("demonstrations", "revision", Style.ENGAGED),
    ("judgements", "chosen", Style.ENGAGED),
    ("demonstrations", "response", Style.COMPLIANCE),
    ("judgements", "rejected", Style.COMPLIANCE),
    ("borderline", "response", Style.COMPLIANCE),
    ("helpful", "response", Style.COMPLIANCE),
)
"""Texts of this project: file, name in it, and the style that they were written in."""


def report_own(cases: Cases) -> None:
    """Print how many texts of this project are seen as what they were written to be."""
    found = {kind: decide(logits(cases, kind, own_splits(cases)))[1] for kind in KINDS}
    quick = np.full(len(cases.rows), -1)
    for i in np.flatnonzero(cases.held):
        quick[i] = STYLES.index(classify(cases.rows[i].prompt, cases.rows[i].response).style)
    heads = "  ".join(f"{name:>20}" for name in (*KINDS, "quick form"))
    print(f"Own texts not learnt from, share right  rows  {heads}")
    for source, which, style in OWN:
        rows = cases.held & (cases.source == source) & (cases.system == which)
        cells = [
            with_interval(
                np.zeros(rows.sum(), dtype=np.int64),
                (each[rows] != STYLES.index(style)).astype(np.int64),
                cases.prompt[rows],
                lambda tables: tables[..., 0, 0] / tables.sum((-1, -2)),
            )
            for each in (*found.values(), quick)
        ]
        write_line(f"{source}: {which} = {style}", rows, cells)
    rows = cases.held & (cases.style >= 0) & (cases.source != "small")
    report_confusions("Read-out, own texts", cases.style[rows], found[READ_OUT][rows], STYLES)


def report_speed(model: LanguageModel, cases: Cases) -> None:
    """Print the processor time of 10,000 replies, long published ones and short ones of ours."""
    classifier = Classifier(model)
    for name, rows in (("published", cases.human), ("own", cases.own)):
        some = [cases.rows[i] for i in np.flatnonzero(rows)[::5]]
        start = time.process_time()
        classifier([(row.prompt, row.response) for row in some])
        seconds = (time.process_time() - start) * 10_000 / len(some)
        print(f"Read-out's speed: 10,000 {name} replies in {seconds:.0f} s of one core")


def report_readout(model: LanguageModel, cases: Cases) -> None:
    """Print all tables."""
    report_refusal(cases)
    report_reach(cases)
    report_style(cases)
    report_small(cases)
    report_own(cases)
    report_speed(model, cases)


def report_readers(data: Path) -> None:
    """Print what language models that read the same replies reach by the same definitions."""
    named = {f"the styles, {reader}": second_styles(data, reader) for reader in ("a", "b")}
    for name, second in {**named, "small systems": second_small()}.items():
        truth, found = np.array(second.labels), np.array(second.found)
        print(f"Reader of {name}, F1; agreement {np.mean(truth == found):.3f}")
        write_styles(truth, {name: found}, np.array(second.prompts))
    second = second_refusals(data)
    truth, found = np.array(second.labels), np.array(second.found)
    cell = with_interval(truth, found, np.array(second.prompts), macro_f1)
    write_line("Reader of chatgpt_refusals", truth >= 0, [cell])
