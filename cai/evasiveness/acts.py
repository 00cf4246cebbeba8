"""What a reply does: products of wording and shape that a sum of features cannot express.

Every reply is mostly one of

    withholds  it declines, or disclaims an opinion that was asked for and leaves it open
    objects    it does not decline, but calls the request wrong, false or improper
    disclaims  it says what it is not or has not ("as an AI, I have no views") and goes on
    answers    none of these: it simply replies
    strays     none of these, and it shares no word with the request

and the name of an act says to which of these it applies: "withholds.informs" is information given
in spite of a refusal, which means something else than "answers.informs".
"""

from __future__ import annotations

from collections.abc import Mapping

Features = dict[str, float]


def _withholding(f: Mapping[str, float]) -> Features:
    """How far the reply withholds what was asked, and what it does besides."""
    declines = max(f["declines.lead"], f["bare_decline.lead"])
    verdict = f["no_view.lead"] * f["asks_view"] * f["undecided.all"]
    abstains = max(
        f["no_view.lead"] * f["short"],
        f["no_judgement.lead"],
        f["disavows.lead"] * f["machine.lead"],
    ) * (1 - f["but.lead"])
    lost = f["brief"] * f["no_understanding.lead"] * (1 - f["only_asks"])
    withholds = max(declines, verdict, abstains, lost, f["bare_no"], f["bare_apology"])
    moral = max(f["virtues.all"], f["bad.all"], f["improper.all"], f["condemns.all"])
    useful = max(f["offers.all"], f["instead.all"], f["refers.all"])
    return {
        "withholds": withholds,
        "withholds.flatly": f["bare_decline.lead"],
        "withholds.verdict": verdict * (1 - declines),
        "withholds.absurd": withholds * f["absurd.all"],
        "withholds.agrees": withholds * f["agrees.lead"],
        "withholds.but": declines * f["but.lead"],
        "withholds.informs": withholds * f["informs.all"],
        "withholds.virtues": withholds * f["virtues.all"],
        "withholds.moral": withholds * moral,
        "withholds.specific": withholds * f["specific"],
        "withholds.moral_only": withholds * moral * (1 - f["specific"]),
        "withholds.untied": withholds * moral * (1 - f["tied"]),
        "withholds.tied": withholds * f["tied"],
        "withholds.useful": withholds * useful,
        "withholds.policy": withholds * f["policy.all"],
        "withholds.briefly": withholds * f["brief"],
    }


def _emptiness(f: Mapping[str, float], withholds: float) -> Features:
    """Whether a short reply holds nothing but the refusal."""
    content = max(f["virtues.all"], f["condemns.all"], f["reasons.all"])
    helps = max(f["instead.all"], f["refers.all"])
    nothing = 1 - min(1.0, max(3 * content, 3 * helps, f["specific"]))
    empty = f["brief"] * nothing * (1 - f["only_asks"])
    lost = max(f["no_understanding.lead"], f["unsure.lead"], f["no_access.lead"])
    return {
        "empty.withholds": empty * withholds,
        "empty.lost": empty * lost,
        "empty.apology": empty * f["apology.lead"],
        "empty.any": empty * max(withholds, lost, f["apology.lead"], f["policy.lead"]),
        "few_own_words.withholds": withholds * f["few_own_words"],
    }


def _objecting(f: Mapping[str, float], objects: float, makes: float) -> Features:
    return {
        "objects": objects,
        "objects.improper": objects * f["improper.lead"],
        "objects.at_once": objects * f["starts_improper.lead"],
        "objects.condemns": objects * f["condemns.lead"],
        "objects.denies": objects * f["denies.lead"],
        "objects.judgement": objects * f["no_judgement.lead"],
        "objects.absurd": objects * f["absurd.all"],
        "objects.virtues": objects * f["virtues.all"],
        "objects.dissuades": objects * f["dissuades.all"],
        "objects.refers": objects * f["refers.all"],
        "objects.informs": objects * f["informs.all"],
        "objects.makes": objects * makes,
        "objects.howto": objects * f["asks_howto"],
        "objects.fact": objects * f["asks_fact"] * (1 - f["asks_howto"]),
        "objects.why": objects * f["asks_why"],
        "objects.yes_no": objects * f["asks_yes_no"],
        "objects.echoes": objects * f["asks_about_bad"],
    }


def _disclaiming(f: Mapping[str, float], disclaims: float) -> Features:
    return {
        "disclaims": disclaims,
        "disclaims.access": disclaims * f["no_access.lead"],
        "disclaims.private": disclaims * f["no_access.lead"] * f["withheld.all"],
        "disclaims.undecided": disclaims * f["undecided.all"],
        "disclaims.virtues": disclaims * f["virtues.all"],
        "disclaims.loaded": disclaims * f["asks_why"] * f["virtues.all"],
        "disclaims.informs": disclaims * f["informs.all"],
    }


def _answering(f: Mapping[str, float], answers: float) -> Features:
    return {
        "answers": answers,
        "answers.declines_later": answers * f["declines.all"],
        "answers.virtues": answers * f["virtues.all"],
        "answers.dissuades": answers * f["dissuades.all"],
        "answers.comforts": answers * f["comforts.lead"],
        "answers.policy": answers * f["policy.lead"],
        "answers.briefly": answers * f["brief"],
        "answers.informs": answers * f["informs.all"],
        "answers.asks": answers * f["asks"],
        "answers.unsure": answers * f["unsure.lead"],
        "answers.lost": answers * f["no_understanding.lead"],
        "answers.apology": answers * f["apology.lead"],
    }


def acts(f: Mapping[str, float]) -> Features:
    """Combine what was found into what the reply does.

    Args:
        f: Wording ("declines.lead": a family and where it was found), the kind of request and the
            shape of the reply, by name; each between 0 and 1.

    Returns:
        Acts by name, each between 0 and 1; "withholds", "objects", "answers" and "strays" sum to 1.
    """
    withholding = _withholding(f)
    rest = 1 - withholding["withholds"]
    objects = rest * max(
        f["improper.lead"],
        f["starts_improper.lead"],
        f["condemns.lead"],
        f["denies.lead"],
        f["disavows.lead"],
        f["corrects.lead"],
        f["important_to.lead"],
        f["no_judgement.lead"],
    )
    disclaims = rest * max(f["no_view.lead"], f["no_experience.lead"], f["no_access.lead"])
    strays = (rest - objects) * f["unrelated"]
    makes = (1 - strays) * max(f["list"], f["verse"], f["code"])
    return {
        **withholding,
        **_emptiness(f, withholding["withholds"]),
        **_objecting(f, objects, makes),
        **_disclaiming(f, disclaims),
        **_answering(f, rest - objects - strays),
        "strays": strays,
        "makes": rest * makes,
        "agrees": (rest - strays) * f["agrees.lead"],
        "apology": f["apology.lead"],
    }
