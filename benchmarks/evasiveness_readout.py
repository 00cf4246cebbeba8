"""The read-out of the reply classifier, and tf-idf beside it: rows, weights and splits.

Both see the same rows with the same weights, and nothing of what is judged is learnt from:
refusals are judged with the system left out (and, stricter, its family), styles with the
publication left out, and texts of this project on the sides that nothing is learnt from. Reach,
weights and penalties were chosen while watching these figures, so they flatter a little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from evasiveness_rows import STYLES, Case
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from cai.evasiveness.classifier import Style
from cai.evasiveness.features import extract
from cai.evasiveness.readout import Readout, look
from cai.evasiveness.states import Reach
from cai.evasiveness.text import clean_reply, plain
from cai.lm.load import LanguageModel
from cai.lm.prepared import base_fingerprint

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Matrix = Floats | csr_matrix

REACH = Reach(layers=8, request_tokens=24, reply_tokens=48, opening_tokens=12)
HELPER_WEIGHT = 0.1  # of rows whose refusal follows from how they were made, against human labels
DEMONSTRATION_WEIGHT = 0.5
STYLE_SHARES = {Style.COMPLIANCE: 4.0, Style.ENGAGED: 3.0}  # in the style model; others 1
STYLE_WEIGHT = 400.0  # of a share
STYLE_POWERS = {"demonstrations": 0.8, "readings": 0.75, "style": 0.75, "small": 0.75}  # others 0.5
STYLE_FEATURES = 1.0  # scale of the named features beside the states, in the style model
FAMILIES = {"llama2new": ("llama2new", "llama2orig"), "llama2orig": ("llama2new", "llama2orig")}
HUMAN = ("xstest", "chatgpt_refusals", "pyrit_refusal")
READ_OUT, TFIDF = KINDS = ("read-out", "tf-idf")
FITTED_TO = (
    "labels of XSTest (CC BY 4.0), chatgpt-refusals, PyRIT, safety-rbr (MIT) and a language model's"
    " labels of replies of these, of the Constitutional AI paper and of hh-rlhf; answers of"
    " OpenAssistant and Self-Instruct (Apache 2.0); the train sides of this project's texts,"
    " replies of its small systems among them. Of all but these no text is shipped."
)


class Cases(NamedTuple):
    """Labelled replies as columns; a label of -1 is not known."""

    rows: list[Case]
    seen: Floats
    names: list[str]
    refusal: Ints
    style: Ints
    source: NDArray[np.str_]
    system: NDArray[np.str_]
    prompt: NDArray[np.str_]
    held: Flags

    @property
    def human(self) -> Flags:
        """Rows whose refusal people labelled."""
        return np.isin(self.source, HUMAN)

    @property
    def own(self) -> Flags:
        """Texts of this project that comply or object as they were written to."""
        return np.isin(self.source, ("demonstrations", "judgements")) & (self.style >= 0)


def make_cases(model: LanguageModel, rows: list[Case]) -> Cases:
    """Run the base over the rows."""
    names = list(extract("", "x"))
    seen = look(model, REACH, names, [(row.prompt, row.response) for row in rows])
    columns = [np.array([getattr(row, name) for row in rows]) for name in Case._fields]
    source, system, prompt, _, refusal, style, held = columns
    return Cases(rows, seen, names, refusal, style, source, system, prompt, held)


def refusal_weights(cases: Cases, keep: Flags) -> Floats:
    """Every system counts as the root of its rows; what people did not label counts less."""
    key = np.char.add(cases.source, cases.system)[keep]
    sizes = Counter(key)
    weights = np.array([sizes[each] ** -0.5 for each in key])
    weights[~cases.human[keep]] *= HELPER_WEIGHT
    weights[cases.own[keep]] *= DEMONSTRATION_WEIGHT / HELPER_WEIGHT
    scaled: Floats = weights / weights.mean()
    return scaled


def style_weights(cases: Cases, keep: Flags) -> Floats:
    """Styles have fixed shares; in a style, sources count as a power of their rows."""
    key = np.array([name.split("/")[0] for name in cases.source[keep]])
    labels = cases.style[keep]
    weights = np.zeros(len(labels))
    for number, style in enumerate(STYLES):
        rows = labels == number
        sizes = Counter(key[rows])
        raw = np.array([sizes[name] ** (STYLE_POWERS.get(name, 0.5) - 1) for name in key[rows]])
        weights[rows] = STYLE_WEIGHT * STYLE_SHARES.get(style, 1.0) * raw / raw.sum()
    return weights


def design(cases: Cases, kind: str, keep: Flags, styles: bool) -> Matrix:
    """Return what a model sees of all rows; scales and vocabulary are those of the rows kept."""
    n_states = cases.seen.shape[1] - len(cases.names)
    used = [styles or not name.startswith("shape.") for name in cases.names]
    named = cases.seen[:, n_states:][:, used]
    if kind == READ_OUT:
        scale = STYLE_FEATURES if styles else 1.0
        mean, spread = state_scale(cases, keep)
        return np.hstack([(cases.seen[:, :n_states] - mean) / spread, named * scale])
    texts = [plain(" ".join(clean_reply(row.response).split()[:80])) for row in cases.rows]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit([text for text, kept in zip(texts, keep, strict=True) if kept])
    return words.transform(texts)


def state_scale(cases: Cases, keep: Flags) -> tuple[Floats, Floats]:
    """Return mean and spread of the states; scaled by them, all states together have variance 1."""
    states = cases.seen[keep, : cases.seen.shape[1] - len(cases.names)]
    return states.mean(0), states.std(0) * states.shape[1] ** 0.5


def fit(cases: Cases, x: Matrix, keep: Flags, styles: bool, kind: str) -> LogisticRegression:
    """Fit the model of refusal or that of styles to the rows kept."""
    labels = cases.style if styles else cases.refusal
    weigh = style_weights if styles else refusal_weights
    penalty = {READ_OUT: 1.0, TFIDF: 10.0}[kind]
    model = LogisticRegression(C=penalty, max_iter=1000)
    return model.fit(x[keep], labels[keep], sample_weight=weigh(cases, keep))


def learnt(cases: Cases, styles: bool) -> Flags:
    """Return the rows that a model may learn from."""
    return ((cases.style if styles else cases.refusal) >= 0) & ~cases.held


Split = tuple[Flags, Flags]
"""Rows not to learn from, and rows to judge."""


def refusal_splits(cases: Cases, family: bool) -> Iterator[Split]:
    """Leave each system out, or its family."""
    for system in sorted(set(cases.system[cases.human])):
        theirs = FAMILIES.get(system, (system,)) if family else (system,)
        yield np.isin(cases.system, theirs), cases.human & (cases.system == system)


def style_splits(cases: Cases) -> Iterator[Split]:
    """Leave each publication out."""
    styled = np.char.startswith(cases.source, "style/")
    publication = np.array([name.split("/")[-1] for name in cases.source])
    for each in sorted(set(publication[styled])):
        yield publication == each, styled & (publication == each)


def small_splits(cases: Cases) -> Iterator[Split]:
    """Leave each of the project's own small systems out; prompts that judge are never learnt."""
    small = cases.source == "small"
    for system in sorted(set(cases.system[small])):
        theirs = small & (cases.system == system)
        yield theirs, theirs & cases.held


def own_splits(cases: Cases) -> Iterator[Split]:
    """Judge the texts of this project that nothing is learnt from."""
    yield np.zeros(len(cases.rows), dtype=np.bool_), cases.held & (cases.source != "small")


def logits(cases: Cases, kind: str, splits: Iterator[Split]) -> Floats:
    """Label each judged row by models that learnt from none of what is left out, [N, 6]."""
    found = np.full((len(cases.rows), 1 + len(STYLES)), np.nan)
    for out, judged in splits:
        for styles, columns in ((False, [0]), (True, list(range(1, 1 + len(STYLES))))):
            keep = learnt(cases, styles) & ~out
            x = design(cases, kind, keep, styles)
            scores = fit(cases, x, keep, styles, kind).decision_function(x[judged])
            found[np.ix_(judged, columns)] = scores.reshape(len(scores), -1)
    return found


def decide(found: Floats) -> tuple[Ints, Ints]:
    """Decide as the classifier does: refusal and style together, in pairs that go together."""
    pairs = np.stack([found[:, 1:], found[:, 1:] + found[:, :1]], axis=1)
    pairs[:, 1, STYLES.index(Style.COMPLIANCE)] = -np.inf
    for style in (Style.GENERIC, Style.EVASIVE):
        pairs[:, 0, STYLES.index(style)] = -np.inf
    refused = np.logaddexp.reduce(pairs, axis=2).argmax(1)
    return refused, pairs[np.arange(len(pairs)), refused].argmax(1)


def fit_readout(model: LanguageModel, cases: Cases) -> Readout:
    """Fit both models to everything and fold the scaling of the states into the weights."""
    n_states = cases.seen.shape[1] - len(cases.names)
    weight = np.zeros((1 + len(STYLES), cases.seen.shape[1]))
    bias = np.zeros(len(weight))
    for styles, out in ((False, slice(0, 1)), (True, slice(1, None))):
        keep = learnt(cases, styles)
        fitted = fit(cases, design(cases, READ_OUT, keep, styles), keep, styles, READ_OUT)
        mean, spread = state_scale(cases, keep)
        on_states = fitted.coef_[:, :n_states] / spread
        used = [styles or not name.startswith("shape.") for name in cases.names]
        weight[out, :n_states] = on_states
        weight[out, n_states:][:, used] = fitted.coef_[:, n_states:] * (
            STYLE_FEATURES if styles else 1.0
        )
        bias[out] = fitted.intercept_ - on_states @ mean
    return Readout(
        base_fingerprint(model), REACH, tuple(cases.names), FITTED_TO, weight.astype(float), bias
    )
