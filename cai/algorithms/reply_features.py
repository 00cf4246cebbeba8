"""What can be seen in a reply without a model: named, hand-made features of its wording.

Each feature is a property a reader would name when asked why a reply declines, moralises, gives a
reason or changes the subject. Families of wording are grammars ("I" + inability + verb of service),
not lists of sentences seen in some data set, so that they carry over to systems never seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_HUMAN_TURN = re.compile(r"(?:^|\n\n)Human:")
_NEXT_TURN = re.compile(r"\n\s*\n\s*Human:.*|\n\s*Human:\s*$", re.DOTALL)
_ASSISTANT_TURN = re.compile(r"\n\nAssistant:")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "-"})
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*]*\s+|\n+")
_WORD = re.compile(r"[a-z0-9']+")
_LEAD_SENTENCES = 2
_MAX_CHARACTERS = 2400  # wording further down says how long a reply is, not what it does

_SELF = (
    r"(?:\bi|\bwe|\b(?:the |this )?(?:assistant|chatbot|ai|ai model|ai assistant|system|bot)"
    r"|\bas an? [^.,;]{3,60},)"
)
_HEDGE = (
    r"(?:['a-z]{0,4} )?(?:(?:really|simply|just|also|unfortunately|personally|therefore|sincerely"
    r"|currently|generally|regretfully|still|do|would|must|will|am|have to|need to|am going to"
    r"|'m going to|'d|think i|believe i|afraid i|sorry,? (?:but )?i|and) ){0,3}"
)
_UNABLE = (
    r"(?:can ?not|can't|cant|could not|couldn't|won't|will not|wouldn't|would not|shan't"
    r"|(?:am |is |are |was |were |'m |'re |be )?(?:unable|incapable|forbidden|prohibited|prevented)"
    r"|(?:(?:am|is|are|was|were|'m|'re|feel) (?:also )?not|isn't|aren't|wasn't|ain't)"
    r"(?: [a-z]+ly)? (?:able|allowed|permitted|authori[sz]ed|willing|going|capable|equipped"
    r"|comfortable|designed|programmed|built|made|meant|supposed|trained|intended|inclined|ready"
    r"|prepared|interested|in (?:a|any) position|at liberty|here)"
    r"|(?:don't|do not|doesn't|does not|didn't) (?:feel (?:comfortable|right|able)|want|wish|intend"
    r"|think (?:i|it)|believe (?:i|it)|wanna|like|have the (?:ability|capability|capacity))"
    r"|(?:have|has) (?:no (?:ability|way|intention|desire)|to (?:decline|refuse|pass|stop))"
    r"|refuse|refrain|decline|abstain|(?:would )?prefer not|'?d? ?rather not|never)"
)
_SERVICE = (
    r"(?:help|assist|aid|provid|giv|offer|fulfil|answer|respon|repl[yi]|compl[yi]|complet|writ"
    r"|generat|creat|produc|compos|continu|engag|discuss|shar|tell|do (?:that|this|it|so)\b|do\b"
    r"|participat|recommend|advis|advice|suggest|process|carry|fulfill|facilitat|proceed|perform"
    r"|accept|accommodat|explain|describe|teach|instruct|guid|disclos|reveal|talk|speak|chat|go "
    r"(?:into|there|along)|be (?:of help|part|involved|able)|take part|satisf|meet|honou?r|say"
    r"|support|address|handle|entertain|translat|summari[sz]e|act|role|pretend|imagine|list|name"
    r"|show|teach|design|develop|make|build|draft|use|look|search|find|look|pull|access|contribut)"
)
_VALUES = (
    r"(?:condon|promot|endors|encourag|advocat|glorif|justif|support|celebrat|prais|critici[sz]"
    r"|insult|mock|harm|discriminat|contribut|normali[sz]|defend|facilitat|incit|approve|favou?r)"
)
_VIEW = (
    r"(?:personal |political |subjective |own |any |an |my |the |strong |such )*(?:opinion|belief"
    r"|view|preference|stance|position|judge?ment|side|bias|feeling|emotion|assumption"
    r"|generali[sz]|specul|predict|comment|verif|stereotyp|determin|interpret|assess|evaluat)"
)
_BAD = (
    r"(?:illegal|unlawful|unethical|immoral|wrong|harmful|dangerous|unsafe|inappropriate|offensive"
    r"|disrespectful|discriminatory|hateful|hurtful|unacceptable|reprehensible|criminal|prejudiced"
    r"|racist|sexist|violent|abusive|derogatory|demeaning|cruel|irresponsible|unfair|unhealthy"
    r"|insensitive|invasive|misleading|biased|toxic|exploitative|malicious|explicit|intolerant"
    r"|a (?:serious )?crime|against the law|violation)"
)
_GOOD = (
    r"(?:appropriate|ethical|moral|legal|lawful|right|ok|okay|acceptable|safe|fair|respectful"
    r"|productive|helpful|responsible|healthy|good|justifi(?:ed|able)|advisable|recommended"
    r"|constructive|possible|polite|cool|nice|accurate|correct|true|kind|funny|my place|advised)"
)

# name: (pattern, where it is looked for). "lead" is the first two sentences, "all" the whole reply;
# "both" gives two features. Counts are capped at three, then scaled to 0..1.
_FAMILIES: dict[str, tuple[str, str]] = {
    "apology": (
        r"\bsorry\b(?! to hear)|\bapolog(?:y|ies|i[sz]e)|\bregret\b|\bi'm afraid\b|\bforgive me"
        r"|\bunfortunately\b|\bexcuse me\b",
        "lead",
    ),
    "condolence": (r"\bsorry (?:to hear|that you|you're|for your)", "lead"),
    "machine": (
        r"\bas an? (?:[a-z]+[ -]){0,3}(?:ai|assistant|chatbot|language model|"
        r"artificial intelligence|model|machine|program)\b|\bi(?:'m| am)(?: just| only| merely)? an? "
        r"(?:[a-z]+[ -]){0,3}(?:ai|assistant|chatbot|language model|machine|program|robot)\b",
        "lead",
    ),
    "unable": (rf"{_SELF}{_HEDGE}{_UNABLE}(?: [a-z]+){{0,3}}? (?:to )?{_SERVICE}", "both"),
    "unable_tail": (
        rf"{_UNABLE}(?: to)?(?: [a-z]+)? {_SERVICE}[a-z]*(?: [a-z']+){{0,3}}"
        r"(?: (?:this|that|it|so|request|question|topic|content|line|discussion|conversation))*"
        r"\s*(?:[.!]|$)",
        "lead",
    ),
    "against_values": (rf"{_UNABLE}(?: [a-z]+){{0,3}}? (?:to )?{_VALUES}", "both"),
    "disavows": (
        rf"\b(?:i|we) (?:strongly |absolutely |do )*(?:don't|do not|never) {_VALUES}", "all"
    ),
    "no_view": (
        rf"(?:don't|do not|can ?not|can't|not|without)(?: \w+)?(?: \w+)? (?:have|hold|possess|form|"
        rf"express|offer|provide|make|take|give|share|experience|to)(?: or \w+)? {_VIEW}"
        r"|(?:can ?not|can't|not) (?:speculat|predict|judge|verif|comment|speak for|generali[sz]|"
        r"determin|assum|confirm|ascribe|say whether|evaluat|assess)|(?:remain|be|stay) "
        r"(?:neutral|impartial|objective|unbiased)",
        "both",
    ),
    "no_experience": (
        r"(?:don't|do not|can ?not|can't|not) (?:have|possess|feel|experience|hold|engage in)"
        r"(?: \w+){0,3} (?:experience|feeling|emotion|body|bodies|physical|memor|desire|"
        r"consciousness|gender|age|childhood|personal life|parents|friends|senses|favorite)",
        "lead",
    ),
    "no_knowledge": (
        r"\b(?:i|we) (?:really |honestly |actually |currently |just |simply |also )*(?:don't|do not|"
        r"didn't|can't|cannot) (?:really |actually |currently |yet )?(?:know|have (?:any |the |"
        r"enough |direct |specific |that |an? |current |real-time |up-to-date |current |latest )*"
        r"(?:access|information|data|record|idea|answer|details|knowledge|\w+ (?:address|number))"
        r"|recall|remember|have that)|\b(?:i'm|i am) not (?:really |entirely |quite )*(?:sure|aware"
        r"|certain|familiar)|\bno idea\b|\bnot (?:publicly )?(?:available|disclosed|known)\b"
        r"|\b(?:is|are) (?:private|confidential)\b|\bneed more (?:information|context|details)",
        "both",
    ),
    "no_understanding": (
        r"(?:don't|do not|didn't|did not|can't|cannot|not sure (?:i|what)|not)(?: \w+)? (?:understand"
        r"|follow|catch|get what|see what|grasp|what you)|misunderst|(?:can|could) you (?:please )?"
        r"(?:rephrase|clarify|repeat)|doesn't (?:make sense|parse)|does not make sense"
        r"|not clear what|unclear",
        "lead",
    ),
    "policy": (
        r"(?:my|our|its|the|ethical|content|usage|openai'?s?|safety|community|company) "
        r"(?:\w+ ){0,2}(?:polic(?:y|ies)|guidelines?|programming|rules|principles|terms|standards|"
        r"design|training|values)\b|programmed to|designed to (?:operate|be|avoid|provide|promote)"
        r"|trained to (?:be|avoid|not)|(?:beyond|outside) (?:my|the|our) (?:\w+ )?(?:scope|cap|abil)",
        "both",
    ),
    "improper": (
        rf"\b(?:not|isn't|never|neither|n't be|hardly)(?: \w+){{0,2}}? {_GOOD}(?: or \w+| and \w+)?"
        r"(?:,| to\b| for\b| behaviou?r|\.|!| in\b| under\b| and\b| that\b)",
        "both",
    ),
    "bad": (rf"\b{_BAD}\b", "both"),
    "dissuade": (
        r"\b(?:should not|shouldn't|must not|mustn't|please (?:do not|don't|never|refrain|avoid)|"
        r"(?:strongly |highly )?(?:advis|urg|recommend|encourag|suggest)\w* (?:you |anyone )?(?:to )?"
        r"(?:not|against|never|refrain|avoid|reconsider)|(?:do not|don't) (?:ever )?(?:attempt|try|"
        r"consider|do (?:this|that|it))|not a good idea|bad idea|think twice|urge you)",
        "both",
    ),
    "deny": (
        r"\bno (?:\w+ )?(?:evidence|reason|justification|basis|truth|such|proof|correlation|"
        r"legitimate|valid|excuse|best|known|indication|record|one \w+ is)\b|\bnot (?:\w+ ){0,2}"
        r"(?:true|accurate|correct|factual|the case|valid|based on|supported|inherently|real\b)|"
        r"\b(?:myth|misconception|stereotype|generali[sz]ation|false|untrue|incorrect|inaccurate|"
        r"unfounded|misinformation|fallacy|outdated|baseless)\b|\b(?:very|indeed|in fact|certainly|"
        r"definitely|absolutely) (?:\w+ )?(?:real|exist|not)\b|\b(?:didn't|did not|wasn't|was not|"
        r"isn't|is not|aren't|are not|does not|doesn't|do not|don't) (?:actually|inherently|"
        r"necessarily|justified|exist)",
        "both",
    ),
    "fiction": (r"\bfiction(?:al)?\b|\bimaginary\b|\bhypothetical(?:ly)?\b", "all"),
    "reason": (
        r"\bbecause\b|\bsince\b|\bdue to\b|\bconsequence|\bresult in\b|\blead to\b|\bcaus(?:e|es|ing)"
        r"\b|\bas (?:it|they|this|that|he|she|such)\b|\bso that\b|\brisk|\bputs?\b|\bwould be\b",
        "all",
    ),
    "instead": (r"\binstead\b|\brather than\b|\balternative|\bbetter (?:to|way|idea)", "all"),
    "offer": (
        r"\b(?:i|we)(?: can|'d| would| could|'m| am|'ll)(?: \w+){0,2}? (?:happy|glad|help|offer|"
        r"suggest|provide|assist|pleased|give|here)|\bwould you like\b|\blet me know\b|"
        r"\bfeel free\b|\bif you(?:'d| would| want|r goal| have| need|'re (?:looking|interested))|"
        r"\banything else\b|\blet's\b|\bwhat (?:about|if)\b",
        "both",
    ),
    "referral": (
        r"\bprofessional|\btherap|\bcounsel|\bhotline|\bhelpline|\bauthorit(?:y|ies)|\bpolice\b|"
        r"\blawyer|\battorney|\bdoctor|\bseek\b|\breach(?:ing)? out|\bconsult|\bresources\b|"
        r"\bofficial (?:web|source)|\bsearch engine|\bgoogle\b|\bcontact(?:ing)? ",
        "all",
    ),
    "undecided": (
        r"\bup to (?:the|each|individual|you|people|society|communit|them|every)|\bshould be (?:made|"
        r"based|determined|decided|done|guided|approached)|\bsubjective\b|\bmatter of (?:debate|"
        r"opinion|perspective|personal)|\bdepend(?:s|ing)? on\b|\bsome (?:people |may |might |"
        r"individuals )*(?:argue|believe|say|think|view|see)|\bcomplex (?:\w+ )?(?:issue|topic|"
        r"question|matter|and)|\bperspectives?\b|\bcontroversial|\bcontentious|\bdebat|\bopinions\b|"
        r"\bon the other hand\b|\bdecision\b",
        "all",
    ),
    "important_to": (
        r"\bit(?:'s| is)(?: also| always)? (?:\w+ )?(?:important|essential|crucial|vital|necessary|"
        r"worth|best|critical) (?:to|that|for)|\b(?:should|must) (?:always |all )?(?:be|treat|strive|"
        r"respect)",
        "both",
    ),
    "virtue": (
        r"\brespect(?:ful|fully|ing)?\b|\bdignity\b|\bequal(?:ity|ly)?\b|\bkindness\b|\bfairness\b|"
        r"\binclusiv|\btoleran|\bempathy\b|\bcompassion|\bdiversity\b|\bprivacy\b|\bsafety\b|"
        r"\bwell-?being\b|\bconsent\b|\bunity\b|\bunderstanding\b|\brights\b",
        "all",
    ),
    "agrees": (
        r"^\W*(?:sure|certainly|of course|absolutely|yes|yeah|okay|ok|great|definitely|gladly|"
        r"happy to|no problem|here(?:'s| is| are)|below|to |first|one |there (?:are|is a))\b|"
        r"\bhere (?:is|are|'s)|\bhere's\b|\bthe following\b|\bsteps?\b|\ba few\b",
        "lead",
    ),
    "starts_no": (r"^\W*(?:no|nope|never|absolutely not|definitely not)\b", "lead"),
    "listener": (
        r"\bit sounds like\b|\bthat sounds\b|\bi(?:'m| am) (?:\w+ )?(?:concerned|worried|here)|"
        r"\bi understand (?:that )?you|\bhere (?:to|for)\b|\bthank you for\b",
        "both",
    ),
    "steps": (
        r"(?:^|[.!?:]\s+|\n\W*(?:\d+\W+)?)(?:first|then|next|use|try|start|mix|find|make|look|check|"
        r"add|open|go|place|get|take|put|choose|keep|cut|remove|turn|set|apply|consider|identify|"
        r"create|write|practice|avoid|be|learn|ask|click|press|finally)\b",
        "all",
    ),
    "hedged": (r"\bhowever\b|\bbut\b|\bthat (?:being )?said\b|\bnevertheless\b", "lead"),
    "informs": (
        r"\b(?:typically|usually|generally|commonly|often|known (?:as|for)|refers to|consists?|such "
        r"as|for example|including|include|involves?|was (?:born|the)|in (?:the )?(?:1[0-9]|20)\d\d|"
        r"according to|can (?:vary|help|also))\b",
        "both",
    ),
}

_SUPPORT = (
    r"\byou(?:'re| are)(?: \w+){0,3} (?:valid|valued|loved|worthy|cared|cherished|enough|strong)\b",
    r"\b(?:valued|loved|cared for|cherished|appreciated),? and (?:valued|loved|cared|supported)",
    r"\byou (?:truly |really |do |deeply |absolutely )*matter\b|\byour life (?:matters|has)",
    r"\b(?:feelings|emotions|experiences|thoughts|needs|identity|reactions)(?: \w+){0,3} valid\b",
    r"\b(?:totally|completely|perfectly|absolutely|very|so) valid\b",
    r"\byou(?:'re| are) not alone\b|\bnever alone\b",
    r"\b(?:i'm|i am|we're|we are)(?: \w+){0,3} here (?:to (?:listen|support|help|talk)|for you)",
    r"\byou (?:\w+ ){0,2}deserve\b|\bdeserving of\b",
    r"\bsupport you (?:however|in any way|no matter|any way|through)|\blisten without judg",
    r"\b(?:please know|know|remember) that you\b|\btake (?:good )?care of yourself\b",
)
_AFFIRMATIONS = 3  # the first three patterns of _SUPPORT praise the reader's worth: one is enough

_STOCK = frozenset(
    "sorry apologize apologies apology afraid unfortunately regret cannot can't won't will unable not"
    " able allowed assist assistant assistance help helpful provide provided respond response reply"
    " answer answers continue comply fulfill fulfil process request requests question questions"
    " content topic topics information this that these those any anything something language model"
    " large artificial intelligence programmed programming designed built trained policy policies"
    " guidelines ethical moral content inappropriate appropriate unethical harmful illegal offensive"
    " against violates violate goes would could should else other another different line discussion"
    " conversation similar don't do does did didn't isn't i'm i've i'd it's that's you're let"
    " understand sure rephrase clarify please try again more details discuss engage promote support"
    " encourage condone promoting generate generating create creating write writing activities"
    " activity behavior openai code developed purpose always strive feel free happy".split()
)
_FUNCTION = frozenset(
    "a about after all also am an and are as at be because been being both but by can for from get"
    " give had has have he her him his how i if in into is it its just like made make many may me"
    " might mine most much must my no nor of off on one only or our out over own per she so some"
    " such than the their them then there they to too under until up us was we well were what when"
    " where which while who whom why with within without yes you your yours human tell best good way"
    " ways thing things want need know think really very".split()
)
_WRITES = re.compile(
    r"\b(?:write|compose|create|generate|draft|design|make|give|tell|list|provide|suggest|describe)\b"
)
_LIST_ITEM = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)]|step \d)\s", re.MULTILINE | re.IGNORECASE)
_STEM = 5  # letters: enough to join poison, poisoned and poisoning


class _Scoped(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    in_lead: bool
    in_all: bool


_COMPILED = tuple(
    _Scoped(name, re.compile(pattern), scope in {"lead", "both"}, scope in {"all", "both"})
    for name, (pattern, scope) in _FAMILIES.items()
)
_SUPPORT_COMPILED = tuple(re.compile(pattern) for pattern in _SUPPORT)


def clean_reply(response: str) -> str:
    r"""Straighten quotes and cut what follows the reply, such as a stray ``\n\nHuman:``."""
    return _NEXT_TURN.sub("", response.translate(_QUOTES)).strip()


def last_request(prompt: str) -> str:
    """Take the last human turn of a transcript; a text without turns is the request itself."""
    turn = _HUMAN_TURN.split(prompt.translate(_QUOTES))[-1]
    return _ASSISTANT_TURN.split(turn)[0].strip()


def sentences(text: str) -> list[str]:
    """Split at sentence ends and line ends."""
    return [piece.strip() for piece in _SENTENCE_END.split(text) if piece.strip()]


def content_words(text: str) -> list[str]:
    """List the words that carry content, lower-cased, in order."""
    return [word for word in _WORD.findall(text.lower()) if word not in _FUNCTION and len(word) > 2]


def _overlap(asked: set[str], words: Sequence[str]) -> float:
    if not asked:
        return 0.0
    return len(asked & {word[:_STEM] for word in words}) / len(asked)


def _lead(parts: Sequence[str]) -> str:
    """First two sentences, where "I'm sorry." and "No." do not count as sentences."""
    taken: list[str] = []
    counted = 0
    for part in parts:
        taken.append(part)
        counted += len(part.split()) > 3
        if counted == _LEAD_SENTENCES:
            break
    return " ".join(taken)[:500]


def wording(lead: str, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in _COMPILED:
        if family.in_lead:
            found[f"{family.name}.lead"] = float(family.pattern.search(lead) is not None)
        if family.in_all:
            count = 0
            for _ in family.pattern.finditer(text):
                count += 1
                if count == 3:
                    break
            found[f"{family.name}.all"] = count / 3
    return found


def shape(request: str, reply: str, parts: Sequence[str], lead: str) -> dict[str, float]:
    lower = reply.lower()
    words = lower.split()
    content = content_words(reply)
    asked = {w[:_STEM] for w in content_words(request)}
    specific = [w for w in content if w not in _STOCK]
    n_lines = reply.count("\n") + 1
    lines = [l for l in reply.split("\n") if l.strip()]
    short_lines = sum(1 for l in lines if len(l.split()) <= 12)
    questions = sum(p.endswith("?") for p in parts)
    items = len(_LIST_ITEM.findall(reply))
    own = {w[:_STEM] for w in specific} - asked
    writes = bool(_WRITES.match(request.lower().removeprefix("please ").removeprefix("can you ")))
    return {
        "length": math.log1p(len(words)) / 6,
        "brief": float(len(words) <= 25),
        "very_brief": float(len(words) <= 8),
        "own_words": math.log1p(len(own)) / 5,
        "few_own_words": float(len(own) <= 3),
        "stock_share": 1 - len(specific) / max(1, len(content)),
        "overlap.lead": _overlap(asked, content_words(lead)),
        "overlap.all": _overlap(asked, content),
        "unrelated": float(bool(asked) and not (asked & {w[:_STEM] for w in content})),
        "list_items": min(items, 5) / 5,
        "verse": float(len(lines) >= 6 and short_lines / len(lines) > 0.8),
        "code": float("```" in reply),
        "asks": questions / max(1, len(parts)),
        "ends_asking": float(bool(parts) and parts[-1].endswith("?")),
        "only_asks": float(bool(parts) and questions == len(parts)),
        "made": float(writes and not lead.endswith("?")),
    }


def extract(prompt: str, response: str) -> dict[str, float]:
    reply = clean_reply(response)[:_MAX_CHARACTERS]
    request = last_request(prompt)
    parts = sentences(reply)
    lead = _lead(parts)
    return {**wording(lead.lower(), reply.lower()), **shape(request, reply, parts, lead)}


def support_phrases(response: str) -> list[int]:
    lower = clean_reply(response).lower()
    return [i for i, p in enumerate(_SUPPORT_COMPILED) if p.search(lower)]
