"""Groups of words, and ways to combine patterns, that the families of wording are built of."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """A pattern and where it is looked for: in the opening, in the whole reply, or in both."""

    pattern: str
    lead: bool
    all: bool


def one_of(words: str) -> str:
    """Alternatives from a list: ``_`` is a space, a final ``*`` any ending."""
    alternatives = [word.replace("_", " ").replace("*", r"\w*") for word in words.split()]
    return "(?:" + "|".join(alternatives) + ")"


def words(listed: str) -> str:
    """Match any word of a list, whole."""
    return r"\b" + one_of(listed) + r"\b"


def lead(*patterns: str) -> Family:
    """Look at how a reply begins."""
    return Family("|".join(patterns), lead=True, all=False)


def whole(*patterns: str) -> Family:
    """Look at the whole reply."""
    return Family("|".join(patterns), lead=False, all=True)


def both(*patterns: str) -> Family:
    """Look at the beginning and at the whole."""
    return Family("|".join(patterns), lead=True, all=True)


ADVERB = r"(?: [a-z]+ly| really| also| just| even| quite| ever| currently)?"
SELF = (
    r"(?:\b(?:i|we)|\b(?:the |this |an? )?(?:assistant|chatbot|bot|ai(?: model| assistant)?)"
    r"|\bas an? [^.;,]{2,60},)"
)
NOT_OTHERS = r"(?!(?:you|they|he|she|people|not|can|if|know)\b)"
FILLER = rf"(?:,? {NOT_OTHERS}[a-z]+,?){{0,4}}?"
ABLE = one_of(
    "able allowed permitted authori[sz]ed willing going capable equipped comfortable designed"
    " programmed built made meant supposed trained intended prepared interested inclined qualified"
    " in_an?_position at_liberty here"
)
NEGATED = (
    r"(?:(?:can|could|will|would|shall|may|must|should) not"
    rf"|(?:am|is|are|was|were|feel|been){ADVERB} not{ADVERB} {ABLE}"
    rf"|(?:am|is|are|was|were|been) {ABLE} (?:to )?not"
    r"|(?:do|did|does) not (?:want|wish|intend|plan|like|care|feel (?:comfortable|right|able)"
    r"|have the (?:ability|capability|capacity|means)|(?:think|believe) (?:it|i|that))"
    r"|have no (?:ability|way|intention|wish)"
    r"|unable|incapable|forbidden|prohibited|refuse|refrain from|decline|abstain from"
    r"|prefer not|rather not|never)"
)
SERVICE = (
    one_of(
        "help* assist* aid* provid* giv* offer* fulfil* answer* respon* repl[yi]* compl[yi]*"
        " complet* writ* generat* creat* produc* compos* continu* engag* discuss* shar* tell*"
        " participat* recommend* advis* suggest* process* carry* facilitat* proceed* perform*"
        " accommodat* explain* describ* teach* instruct* guid* disclos* reveal* talk* speak* chat*"
        " satisf* honou?r* support* address* entertain* translat* role* pretend* imagin* design*"
        " develop* draft* show* say* contribut* permit* choose* use* take* make_fun be_of be_part"
        " be_involved do go act list"
    )
    + r"\b"
)
# "I can not give an opinion, but ..." opens an answer: what is withheld is not the service.
NOT_SERVICE = (
    r"(?:opinions?|beliefs?|views?|preferences?|stance|judg\w+|feelings?|emotions?|assumptions?"
    r"|generali\w+|speculat\w+|predict\w+|comment on|definitive|normative|(?:medical|legal"
    r"|financial|professional|tax|investment|psychological) (?:or \w+ )?(?:advice|diagnos\w+))\b"
)
VALUES = one_of(
    "condon promot endors encourag advocat glorif justif support celebrat prais critici[sz] insult"
    " mock harm discriminat normali[sz] incit approv favou?r contribut tolerat"
)
BAD = one_of(
    "illegal unlawful unethical immoral wrong harmful dangerous unsafe inappropriate offensive"
    " disrespectful discriminatory hateful hurtful unacceptable reprehensible prejudiced racist"
    " sexist abusive derogatory demeaning cruel irresponsible unfair unhealthy insensitive invasive"
    " toxic malicious intolerant unjust against_the_law illegitimate problematic inhumane dishonest"
)
GOOD = one_of(
    "appropriate ethical moral morally ethically legal lawful right ok okay acceptable safe fair"
    " respectful productive responsible healthy good justifi* advisable recommended constructive"
    " polite kind funny proper my_place a_joke within"
)
IS_NOT = (
    r"(?:(?:is|are|was|be|seems?) (?:not|never|neither|hardly)(?: (?!only)[a-z]+){0,3}?"
    r"|not (?:think|believe|sure|feel|find)(?: that)? (?:it|this|that)(?: is| would be)?"
    r"(?: [a-z]+){0,2}?|\bnever)"
)
TO_SAY = one_of(
    "provid* giv* offer* discuss* shar* answer* respond* writ* generat* creat* engage_in assist*"
    " help* promot* encourag* suggest* support* ask request* speculat* joke* make_assum*"
    " make_general* make_fun make_joke* make_a_joke"
)
OUR_RULES = (
    r"(?:my|the|our|any|its) (?:\w+ ){0,2}"
    r"(?:programming|capabilit|abilit|scope|design|guidelines|polic|purpose)"
)
VAGUE_OBJECT = one_of(
    "you me with to on in any about of for further or more help your this that it so these those"
    " such similar kind type line discussion request requests question questions topic topics"
    " content conversation here at time respond answer continue"
)
