"""The text of requests and replies: cleaned, simplified, and cut into sentences and words."""

from __future__ import annotations

import re

Exchange = tuple[str, str]
"""A prompt and a reply to it."""

_QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "-", "\u2013": "-"}
)
_IRREGULAR = {
    "cannot": "can not",
    "cant": "can not",
    "can't": "can not",
    "won't": "will not",
    "wont": "will not",
    "dont": "do not",
    "shan't": "shall not",
    "ain't": "am not",
    "im": "i am",
    "i'm": "i am",
    "let's": "let us",
}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'d": " would"}
_HUMAN_TURN = re.compile(r"(?:^|\n\n)Human:")
_ASSISTANT_TURN = re.compile(r"\n\nAssistant:")
_HUMAN_LINE = re.compile(r"\n[ \t]*Human:")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*]*\s+|\n+")
_WORD = re.compile(r"[a-z0-9']{3,}")
_SUFFIX = re.compile(r"(?<=[a-z]{3})(?:ings?|e?d|e?rs?|e?s|ly|e)$")
_STEM = 5  # letters: joins robbing and robbery, poison and poisonous
_CONTRACTION = re.compile(
    rf"\b(?P<word>{'|'.join(map(re.escape, _IRREGULAR))})\b"
    r"|(?P<ending>n't|'re|'ve|'ll|'d)\b|\b(?P<subject>it|that|there|what|here|he|she|who|this)'s\b"
)


def _vocabulary(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that a refusal of anything may use.
STOCK_WORDS = _vocabulary(
    "sorry apologize apologise apologies apology afraid unfortunately regret unable able allowed"
    " assist assistant assistance help helpful provide provided providing respond response"
    " responses reply answer answers answering continue comply fulfill fulfil process request"
    " requests question questions content topic topics information language model large artificial"
    " intelligence programmed programming designed built trained policy policies guidelines"
    " ethical moral inappropriate appropriate unethical harmful illegal offensive against violates"
    " goes else other another different line discussion conversation similar understand sure"
    " rephrase clarify please try again details discuss engage promote promotes support encourage"
    " condone promoting generate generating create creating write writing activities activity"
    " behavior developed purpose always strive feel free happy personal opinions beliefs search"
    " find talk catch following mean means explain asking ask asked exactly responsible act"
    " actions acts ethically morally lawful lawfully law laws integrity honest honesty dishonest"
    " respect respectful respectfully disrespectful dignity others everyone every each person"
    " people individuals individual group groups value values principle principles important"
    " essential treat treated society rights hurtful cruel demeaning discrimination discriminatory"
    " inclusive inclusivity violence violent hate speech safety safe unsafe wellbeing positive"
    " environment legal unlawful standards rules community dangerous equality equally kindness"
    " kind compassion empathy fairness fair wrong immoral immorality involve involves involving"
    " related type kinds nature sensitive comfortable willing decline refuse must should rather"
    " instead anything something someone somebody anyone let us move change subject take part"
    " remain neutral impartial unbiased bias biased produce produces advice guidance instructions"
    " harm harms hurt goal role here today right now time moment current scope beyond outside"
    " within cause consequences serious any offend contribute perpetuate stereotypes prejudice"
    " ensure remember note maintain prioritize adhere regardless"
)
# Words that say what to make, not what about.
TASK_WORDS = _vocabulary(
    "write explain concept describe description summarize summary difference between create"
    " generate short simple list provide share story poem joke riddle popular common example"
    " examples lyrics long passage tips recommend suggest help following sentence sentences words"
    " text paragraph input output answer question using based explanation compose article essay"
    " human assistant"
)
FUNCTION_WORDS = _vocabulary(
    "about after all also and any anything are because been being both but can could did does"
    " each for from get give had has have her him his how into its just like made make many may"
    " might mine more most much must not off one only our out over own per she should so some"
    " someone something such than that the their them then there these they thing things this"
    " those too under until was way ways well were what when where which while who whom why will"
    " with within without would yes you your yours tell best good want need know think really very"
    " let"
)


def _expand(found: re.Match[str]) -> str:
    if word := found["word"]:
        return _IRREGULAR[word]
    if ending := found["ending"]:
        return _ENDINGS[ending]
    return f"{found['subject']} is"


def plain(text: str) -> str:
    """Lower the case, straighten quotes and write contractions out."""
    return _CONTRACTION.sub(_expand, text.translate(_QUOTES).lower())


def clean_reply(response: str) -> str:
    r"""Cut what follows the reply: a turn after a blank line, or a bare ``\nHuman:`` at the end."""
    for found in _HUMAN_LINE.finditer(response):
        before, after = response[: found.start()], response[found.end() :]
        if before.rstrip(" \t").endswith("\n") or not after.strip():
            return before.strip()
    return response.strip()


def last_request(prompt: str) -> str:
    """Take the last human turn of a transcript; a text without turns is the request itself."""
    turn = _HUMAN_TURN.split(prompt)[-1]
    return _ASSISTANT_TURN.split(turn)[0].strip()


def sentences(text: str) -> list[str]:
    """Split at sentence ends and line ends."""
    return [piece.strip() for piece in _SENTENCE_END.split(text) if piece.strip()]


def words(text: str) -> list[str]:
    """List the words of a text in lower case that are not function words, in order."""
    return [word for word in _WORD.findall(text) if word not in FUNCTION_WORDS]


def stems(text: str) -> set[str]:
    """Return the beginnings of the words of a text in lower case that are not function words."""
    return {_SUFFIX.sub("", word)[:_STEM] for word in words(text)}
